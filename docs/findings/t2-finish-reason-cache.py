"""T2/finish-reason: a mocker answers a prompt that its KV blocks cannot hold with nothing, as if that were the answer.

One mocker with 64 blocks of 64 tokens, and a prompt of 4,500 tokens. The stream ends at once: status 200, no text, finish
reason `stop`, [DONE], no error. In the control it has the default's 16,384 blocks, and the answer is whole.

Promised: the finish reason of OpenAI's API, in which `stop` is a stop string met or the model's own end of an answer.
"""

from __future__ import annotations

from cluster import Cluster, main

PROMPT_TOKENS = 4500


def trial(with_fault: bool) -> str:
    with Cluster(workers=1, blocks=64 if with_fault else 16384) as cluster:
        whole = cluster.send(text="x" * PROMPT_TOKENS, max_tokens=20).read()
        empty = whole.status == 200 and whole.dones == 1 and not (whole.text or whole.errors or whole.cut)
        return f"status 200, no text, finish {whole.finishes}, {whole.dones} [DONE], no error" if empty else ""


if __name__ == "__main__":
    main("T2/finish-reason", trial)
