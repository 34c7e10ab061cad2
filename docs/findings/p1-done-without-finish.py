"""P1/done-without-finish: an answer whose engine just stopped ends like a whole one, but without a finish_reason.

Two workers. The one that serves the request ends its stream after 4 of 10 tokens, without a finish reason and without an
error. A streamed answer then ends with [DONE], one that is not streamed has status 200; in neither is there a
finish_reason or an error, and nothing is migrated.

No page speaks of it. Expected because the API is OpenAI's (components/frontend), in which a whole answer has a
finish_reason for each choice. In the control the stream ends with one.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "abcdefghij"
BROKEN_OFF_AT = 4


def trial(with_fault: bool) -> str:
    wrong = []
    with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:
        for stream, chat in ((True, False), (False, False), (True, True), (False, True)):
            if with_fault:
                cluster.order_death(BROKEN_OFF_AT, "return")
            got = cluster.send(max_tokens=len(TEXT), stream=stream, chat=chat).read()
            if got.status == 200 and not got.cut and not got.errors and not got.finishes:
                ending = "[DONE]" if got.dones else "end of the body"
                wrong.append(f"{'chat' if chat else 'completion'} {got.text}, {ending}")
    return f"no finish_reason, no error: {'; '.join(wrong)}" if wrong else ""


if __name__ == "__main__":
    main("P1/done-without-finish", trial)
