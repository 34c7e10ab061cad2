"""Each defect of the counting engine, planted on real processes: is it found, by what, and how soon?

    python benchmarks/defects.py [--ftmodel PATH] [--sut-python PATH] [--seeds 1,2,3] [--defects NAME,...] [--side-by-side 2]

For each defect and seed one `ftmodel run` of the default profile on a topology whose engine has that defect. Found means:
a violation under one of the signatures that the defect calls for, below; when is told by the line that the
command writes of the first example that has it, from the start of the command. Standard library alone.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

BOUND_S = 180
EXPECTED = {
    "drops-token": ("T1/lost",),
    "doubles-token": ("T1/doubled",),
    "reorders-tokens": ("T1/reordered",),
    "ignores-abort": ("A1/missing", "A3/ran-on"),
    "aborts-in-log-only": ("A3/still-running",),
    "foreign-tokens": ("P4/cross-talk",),
    "wrong-usage": ("P5/prompt-tokens", "P5/completion-tokens"),
    "no-finish-reason": ("P1/done-without-finish", "P1/looks-whole", "T2/finish-reason"),
    "hangs": ("L1/never-ended", "L3/hang"),
    "dies-silently": ("R5/exited",),
    "leaks-slot": ("A3/still-running", "R1/worker-running", "R1/worker-kv"),
    "admits-while-draining": ("C5/still-listed", "C5/takes-work"),
}


def run(arguments: argparse.Namespace, defect: str, seed: int) -> tuple[str, bool]:
    """One run: a line that says what came of it, and whether the defect was found in time."""
    with tempfile.TemporaryDirectory(prefix="ftmodel-defect-") as folder:
        every = 8 if defect in ("dies-silently", "hangs") else 1  # more often, and nothing else goes on
        text = f'system = "dynamo"\nengine = "counting"\n[options]\ndefect = "{defect}"\ndefect_every = {every}\n'
        top = pathlib.Path(folder) / "spoiled.toml"
        top.write_text(text)
        command = [arguments.ftmodel, "run", "--topology", str(top), "--seed", str(seed), "--json", "--store", folder]
        command += ["--sut-python", arguments.sut_python]
        began_s, found_s, told = time.monotonic(), math.inf, ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stderr:
                told = line.strip() or told
                if line.startswith("example") and any(signature in line for signature in EXPECTED[defect]):
                    found_s = min(found_s, time.monotonic() - began_s)
            total = process.stdout.read()
        whole_s = time.monotonic() - began_s
        if process.returncode not in (0, 1):
            return f"{defect:<22} seed {seed}: exit {process.returncode}: {told[-300:]}", False
        violations = json.loads(total.splitlines()[-1])["violations"]
    counts = {violation["signature"]: violation["count"] for violation in violations}
    hit = [f"{signature} {counts[signature]}x" for signature in EXPECTED[defect] if signature in counts]
    beside = [signature for signature in counts if signature not in EXPECTED[defect]]
    words = f"found after {found_s:.0f} s, in {whole_s:.0f} s {', '.join(hit)}" if hit else "NOT FOUND"
    line = f"{defect:<22} seed {seed}: {words}; beside it {', '.join(beside) or 'nothing'}"
    return line, found_s <= BOUND_S


def main() -> None:
    """Run them all; exit 0 if each was found each time."""
    beside = pathlib.Path(sys.executable)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ftmodel", default=str(beside.with_name("ftmodel")))
    parser.add_argument("--sut-python", default=str(beside))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--defects", default=",".join(EXPECTED))
    parser.add_argument("--side-by-side", type=int, default=1)
    arguments = parser.parse_args()
    todo = [(defect, int(seed)) for defect in arguments.defects.split(",") for seed in arguments.seeds.split(",")]
    found = 0
    with ThreadPoolExecutor(max_workers=arguments.side_by_side) as pool:
        for words, hit in pool.map(lambda one: run(arguments, *one), todo):
            print(words, flush=True)
            found += hit
    print(f"{found} of {len(todo)} found within {BOUND_S} s each")
    sys.exit(0 if found == len(todo) else 1)


if __name__ == "__main__":
    main()
