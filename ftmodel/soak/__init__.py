"""The long soak: rounds of examples in lanes of processes, until the time is over, and a journal of all of it.

rounds.py     Round       a seed and a mix: all that is needed to draw its plans again
lane.py       Lane        a process that plays rounds on clusters of its own, and tells what became of them
telling.py    Told        what a lane tells, and when a round is over
places.py     Place       where lanes run: processes of this machine
driver.py     Driver      gives rounds to lanes, and puts down what they tell
findings.py   Findings    what is found: confirmed, made smaller, told
journal.py    Journal     journal.sqlite: what a killed soak goes on from
totals.py     Totals      counts over all examples, as the verdict tells them
"""
