"""P1/looks-whole: an answer that the engine broke off as cancelled ends with finish_reason "stop", like a whole one.

Two workers. The one that serves the request ends its stream after 4 of 10 tokens, with the finish reason "cancelled",
which is one of those that an engine can give. The frontend says "stop" to the client, streamed or not: there is no error,
and no migration.

No page speaks of it. Expected because the API is OpenAI's (components/frontend), in which "stop" says that the model came
to a natural end or to a stop sequence. In the control nothing is cancelled.
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
                cluster.order_death(BROKEN_OFF_AT, "cancelled")
            got = cluster.send(max_tokens=len(TEXT), stream=stream, chat=chat).read()
            if got.status == 200 and got.text != TEXT and not got.errors and got.finishes in (["stop"], ["length"]):
                wrong.append(f"{'chat' if chat else 'completion'}, {'streamed' if stream else 'not streamed'}")
                last = f"{got.text}, finish_reason {got.finishes[0]}, expected {TEXT} or an error"
    return f"{last}: {'; '.join(wrong)}" if wrong else ""


if __name__ == "__main__":
    main("P1/looks-whole", trial)
