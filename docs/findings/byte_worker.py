"""A minimal Dynamo worker (1.1 to 1.6) that emits the UTF-8 bytes of a fixed text, one token a byte, 5 ms apart.

Token ids 0 to 255 of the model directory are the bytes. The position in the text is the number of tokens behind the
last newline of the prompt, so a request that Dynamo moves here, sent as prompt plus what was generated so far, goes on
where it was. `cluster.py` starts it:

    python byte_worker.py MODEL_DIRECTORY TEXT DEATH_FILE MODEL_NAME [finalise]

Where several choices are asked for, each has this text, and a token of each goes out at a time.

If DEATH_FILE exists and holds "POSITION HOW", the first worker that comes to that position removes the file and obeys:
before the token of that position, or after the last one, where the position is max_tokens. HOW is "die", to kill its
own process group with SIGKILL; "return", to end the stream without a finish reason; or "cancelled", to end it with that
finish reason. A prompt of more than CONTEXT tokens is refused with Dynamo's InvalidArgument. After a drain the process
leaves at once, or, with "finalise", as every Python program does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import AsyncIterator

from dynamo import llm
from dynamo.llm.exceptions import InvalidArgument
from dynamo.runtime import DistributedRuntime
from dynamo.runtime.logging import configure_dynamo_logging

CONTEXT = 16384
NEWLINE = 10
PACE_S = 0.005


def position_of(token_ids: list[int]) -> int:
    """The number of tokens behind the last newline."""
    return len(list(itertools.takewhile(lambda token: token != NEWLINE, reversed(token_ids))))


class Worker:
    """The endpoint's handler."""

    def __init__(self, text: bytes, death: pathlib.Path) -> None:
        self.text, self.death = text, death

    async def generate(self, request: dict, context: object) -> AsyncIterator[dict]:
        """Emit what is left of the text, within max_tokens. A context that is stopped ends it."""
        at = position_of(request["token_ids"])
        left = request["stop_conditions"]["max_tokens"]
        end = at + left
        choices = (request.get("sampling_options") or {}).get("n") or 1
        say("begun", context.id(), position=at, max_tokens=left)
        if len(request["token_ids"]) > CONTEXT:
            raise InvalidArgument(f"a prompt of {len(request['token_ids'])} tokens: expected {CONTEXT} at most")
        while not context.is_stopped():
            await asyncio.sleep(PACE_S)
            if how := self.ordered(at):
                if how == "cancelled":
                    yield {"token_ids": [], "finish_reason": how}
                return
            if at < end:
                token = self.text[at % len(self.text)]
                at += 1
                for index in range(choices):
                    yield {"token_ids": [token], "index": index, **({"finish_reason": "length"} if at == end else {})}
            elif not left:
                yield {"token_ids": [], "finish_reason": "length"}
            if at >= end:
                await asyncio.sleep(PACE_S)  # the last token goes out
                self.ordered(end)
                say("ended", context.id(), tokens=left)
                return
        say("aborted", context.id())

    def ordered(self, position: int) -> str:
        """How the file has the stream end here, if it does and no other worker was first; "die" does not return."""
        try:
            at, how = self.death.read_text().split()
            if position != int(at):
                return ""
            self.death.unlink()
        except (OSError, ValueError):
            return ""
        say(how, "", position=position)
        if how == "die":
            os.killpg(os.getpgid(0), signal.SIGKILL)
        return how


def say(what: str, request_id: str, **fields: int) -> None:
    """A line of the log."""
    os.write(
        1, json.dumps({"byte_worker": what, "request_id": request_id, "time": time.time(), **fields}).encode() + b"\n"
    )


async def main(model: str, text: str, death: str, name: str) -> None:
    """Register, and serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    runtime = DistributedRuntime(loop, os.environ["DYN_DISCOVERY_BACKEND"], os.environ["DYN_REQUEST_PLANE"])
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, runtime.shutdown)
    endpoint = runtime.endpoint("dynamo.backend.generate")
    kind = {"worker_type": llm.WorkerType.Aggregated} if hasattr(llm, "WorkerType") else {}  # from 1.3 on
    await llm.register_model(
        llm.ModelInput.Tokens, llm.ModelType.Chat | llm.ModelType.Completions, endpoint, model, model_name=name, **kind
    )
    await endpoint.serve_endpoint(Worker(text.encode(), pathlib.Path(death)).generate, graceful_shutdown=True)


if __name__ == "__main__":
    configure_dynamo_logging()
    asyncio.run(main(*sys.argv[1:5]))
    if sys.argv[5:] != ["finalise"]:
        os._exit(0)  # threads of the runtime may still hold Python objects
