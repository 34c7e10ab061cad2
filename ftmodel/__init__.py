"""Finds fault-tolerance bugs in distributed LLM serving, by random sequences of faults and requests on real clusters."""
