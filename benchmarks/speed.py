"""Faults and cancels a minute: a run of ftmodel against one scenario at a time on a cluster that is started for it.

Run by the interpreter of the cluster under test, on a machine that does nothing else:

    python benchmarks/speed.py [--ftmodel PATH] [--profile quick] [--examples N] [--rounds 5]

The scenarios are those of the classic tests: start a frontend and two workers, send a long request, 0.5 s later SIGKILL
the worker that serves it, expect completion and the line of the migration; or send three requests with a client timeout
of 1 s (completion, chat, streamed chat), expect a control message in the frontend's log for each. Stop the cluster. A
run's verified faults count one scenario each, its cancels a third of one. Standard library alone.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "docs" / "findings"))
from cluster import Cluster, release

KILL_AFTER_S = 0.5
TIMEOUT_S = 1.0
LONG_TOKENS = 300
"""About two seconds of a mocker: it is under way when its worker dies. The classic test has 8000."""
CANCELS = 3


def kill_scenario() -> None:
    """One kill, on a cluster of its own."""
    with Cluster(workers=2) as cluster:
        answer = cluster.send(max_tokens=LONG_TOKENS)
        answer.open()
        time.sleep(KILL_AFTER_S)  # as the classic test does
        holder = cluster.holder(answer)
        assert holder is not None, "no worker serves the request"
        cluster.kill(holder)
        for line in answer.lines():
            if line.removeprefix("data:").strip() == "[DONE]":
                break
        else:
            raise AssertionError("the request did not complete")
        answer.close()
        assert "Stream disconnected, recreating stream" in cluster.log("frontend"), "no migration was logged"


def cancel_scenario() -> None:
    """Three cancels by a client timeout, on a cluster of its own."""
    with Cluster(workers=2) as cluster:
        for count, (chat, stream) in enumerate(((False, False), (True, False), (True, True)), start=1):
            answer = cluster.send(max_tokens=2 * LONG_TOKENS, stream=stream, chat=chat, timeout_s=TIMEOUT_S)
            time.sleep(TIMEOUT_S)  # the client waits as long as it has said
            answer.close()
            cluster.wait(lambda count=count: _told(cluster) >= count, "the frontend told the worker")


def _told(cluster: Cluster) -> int:
    workers = [title for title in cluster.processes if title != "frontend"]
    kills = cluster.log("frontend").count("issued control message")
    return max(kills, sum(cluster.log(title).count("request cancellation received") for title in workers))


def timed(scenario: Callable[[], None], rounds: int) -> list[float]:
    """Seconds of each of several rounds."""
    seconds = []
    for _ in range(rounds):
        before_s = time.monotonic()
        scenario()
        seconds.append(time.monotonic() - before_s)
    return seconds


def run(arguments: argparse.Namespace) -> tuple[dict, float]:
    """One run of ftmodel: its verdict, and its seconds from start to end, interpreter included."""
    with tempfile.TemporaryDirectory(prefix="ftmodel-speed-") as store:
        command = [arguments.ftmodel, "run", "--sut-python", sys.executable, "--profile", arguments.profile]
        command += ["--examples", str(arguments.examples)] if arguments.examples else []
        command += ["--seed", str(arguments.seed), "--store", store, "--json"]
        before_s = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - before_s
        if done.returncode not in (0, 1):
            sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr[-500:]}")
        return json.loads(done.stdout.splitlines()[-1]), seconds


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ftmodel", default=str(pathlib.Path(sys.executable).with_name("ftmodel")))
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    kill, cancel = timed(kill_scenario, arguments.rounds), timed(cancel_scenario, arguments.rounds)
    for name, seconds in (("one kill", kill), (f"{CANCELS} cancels", cancel)):
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}, {len(seconds)} rounds"
        print(f"scenario, {name:<10} {statistics.median(seconds):6.2f} s ({spread})", flush=True)
    verdict, seconds = run(arguments)
    faults = sum(counts["verified"] for counts in verdict["faults"].values())
    cancels = verdict["requests"]["cancelled"]
    alone_s = faults * statistics.median(kill) + cancels / CANCELS * statistics.median(cancel)
    print(f"ftmodel run --profile {arguments.profile}: {verdict['examples']} examples in {seconds:.1f} s, verified")
    print(f"    faults {faults}, cancels {cancels}: {60 * (faults + cancels) / seconds:.0f} a minute")
    print(f"one at a time: {alone_s:.0f} s, {60 * (faults + cancels) / alone_s:.1f} a minute")
    print(f"ratio {alone_s / seconds:.1f} (ai-dynamo {'.'.join(map(str, release()))})")


if __name__ == "__main__":
    main()
