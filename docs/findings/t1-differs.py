"""T1/differs: the choices of an answer are decoded as one text, so a character of one breaks by a token of another.

One worker, whose tokens are bytes of 2-byte characters. A request asks for two choices. Nobody dies.

Promised: the API is OpenAI's (components/frontend), where choices are texts of their own. The control asks for one choice.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "żółw"


def trial(with_fault: bool) -> str:
    with Cluster(workers=1, engine="bytes", text=TEXT) as cluster:
        got = cluster.send(max_tokens=len(TEXT.encode()), n=2 if with_fault else 1).read()
    wrong = {index: text for index, text in got.texts.items() if text != TEXT}
    return f"expected {TEXT!r} of each choice, got {wrong}, errors {got.errors}, cut {got.cut!r}" if wrong else ""


if __name__ == "__main__":
    main("T1/differs", trial)
