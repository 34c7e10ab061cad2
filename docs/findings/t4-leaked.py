"""T4/leaked: the first part of a stop string is told to the client, where the stop string spans two tokens.

One worker emits "abcdefghij", one token a character. The stop string is "ef". The frontend sends "e" on before it has seen
"f", and leaves only "f" out of the answer; the finish is "stop".

Promised: the API is OpenAI's (components/frontend), in which the returned text does not contain the stop sequence. The
control has the stop string "e", which is one token.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "abcdefghij"


def trial(with_fault: bool) -> str:
    with Cluster(workers=1, engine="bytes", text=TEXT) as cluster:
        wrong = []
        for stream in (True, False):
            got = cluster.send(max_tokens=len(TEXT), stream=stream, stop=["ef" if with_fault else "e"]).read()
            if got.status != 200 or got.errors or got.finishes != ["stop"]:
                raise RuntimeError(f"another failure: {got}")
            if got.text != "abcd":
                wrong.append(f"{'streamed' if stream else 'not streamed'}: {got.text}, expected abcd")
        return "; ".join(wrong)


if __name__ == "__main__":
    main("T4/leaked", trial)
