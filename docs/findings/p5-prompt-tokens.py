"""P5/prompt-tokens: after a migration, usage.prompt_tokens counts tokens of the answer as tokens of the prompt.

Two mockers. A prompt of 14 tokens, answered with 60; its worker is killed mid-answer, and the other is sent prompt and
generated tokens as one prompt. Where the engine reports its own count of prompt tokens, that one reaches the client.

Promised: the API is OpenAI's (components/frontend), in which prompt_tokens are those of the prompt; and a migration has
"no interruption visible to the client" (fault-tolerance/request-migration). The control kills nobody.
"""

from __future__ import annotations

import itertools

from cluster import PROMPT, Cluster, Whole, main

TOKENS = 60
READ = 20


def trial(with_fault: bool) -> str:
    with Cluster(workers=2) as cluster:
        answer = cluster.send(max_tokens=TOKENS, stream_options={"include_usage": True})
        got = Whole(answer.open())
        lines = answer.lines()
        for line in itertools.islice(lines, READ):
            answer.take(line, got)
        if with_fault:
            cluster.kill(cluster.holder(answer) or "")
        for line in lines:
            answer.take(line, got)
        answer.close()
        if got.status != 200 or got.errors or not got.dones or not got.usage:
            raise RuntimeError(f"another failure: {got}")
        told = got.usage["prompt_tokens"]
        return f"prompt_tokens {told} for a prompt of {len(PROMPT)}: {got.usage}" if told != len(PROMPT) else ""


if __name__ == "__main__":
    main("P5/prompt-tokens", trial)
