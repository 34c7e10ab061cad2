"""P2/refused-in-stream: a streamed request that the worker refuses gets status 200, and the refusal inside the stream.

One worker with a context of 16,384 tokens, and a prompt of 20,001. Not streamed, the request gets status 400; streamed it
gets 200 and then an error of code 400.

Promised (release notes of 1.5.0): "over-context requests are rejected before the stream opens, validation failures return
HTTP 400". The control has a prompt that fits.
"""

from __future__ import annotations

from cluster import Cluster, main

LONG = 20_001


def trial(with_fault: bool) -> str:
    wrong = []
    with Cluster(workers=1, engine="bytes", text="abcdefgh") as cluster:
        for chat in (False, True):
            text = "x" * (LONG - 1 if with_fault else 99) + "\n"
            plain = cluster.send(max_tokens=8, text=text, stream=False, chat=chat).read()
            got = cluster.send(max_tokens=8, text=text, chat=chat).read()
            if plain.status != (400 if with_fault else 200):
                raise RuntimeError(f"another failure: {plain}")
            if got.status != plain.status:
                name = "chat" if chat else "completion"
                wrong.append(f"{name}: not streamed {plain.status}, streamed {got.status} and {got.errors[:1]}")
    return "; ".join(wrong)


if __name__ == "__main__":
    main("P2/refused-in-stream", trial)
