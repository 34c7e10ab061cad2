"""The whole of a script: run the steps, print PASS or FAIL with the evidence, leave nothing behind."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from ftmodel.report.runtime.checks import Check
from ftmodel.report.runtime.cluster import NoTrialError, Setup, VoidError
from ftmodel.report.runtime.trial import Trial

PASS, FAIL, NO_TRIAL = 0, 1, 2


def main(title: str, setup: Setup, steps: Callable[[Trial], None], check: Check) -> None:
    """Run the steps on a cluster of their own, once or --times. Exits 0 if all was well, 1 if not, 2 without a trial."""
    parser = argparse.ArgumentParser(description=f"{title}. Exit code: 0 pass, 1 fail, 2 no trial could be held.")
    parser.add_argument("--times", type=int, default=1, help="how often, each time on a fresh cluster (default 1)")
    times = parser.parse_args().times
    try:
        found = version(setup.distribution)
    except PackageNotFoundError:
        print(f"no trial: {sys.executable} has no {setup.distribution}; run it with an interpreter that has it")
        sys.exit(NO_TRIAL)
    other = f" ({setup.distribution} {found}; it was seen on {setup.version})" if found != setup.version else ""
    seen, last = 0, ""
    for number in range(1, times + 1):
        try:
            wrong = _held(setup, steps, check)
        except NoTrialError as error:
            print(f"no trial: {error}{other}")
            sys.exit(NO_TRIAL)
        seen, last = seen + bool(wrong), wrong or last
        if times > 1:
            print(f"{number}: {wrong or 'as promised'}", flush=True)
    rate = f", in {seen} of {times}" if times > 1 else ""
    print(f"FAIL {title}: {last}{rate}{other}" if seen else f"PASS {title}: as promised{rate}{other}", flush=True)
    sys.exit(FAIL if seen else PASS)


def _held(setup: Setup, steps: Callable[[Trial], None], check: Check) -> str:
    """One trial: what was wrong, or "". It runs beside the main thread, which alone hears signals, and then ends it."""
    trial, result = Trial(setup), _Result()

    def hold() -> None:
        try:
            trial.run(steps)
            result.wrong = check(trial)
        except (NoTrialError, VoidError) as error:
            result.error = error
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            result.error = NoTrialError(repr(error))
        finally:
            result.over.set()

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    try:
        threading.Thread(target=hold, daemon=True).start()
        result.over.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        trial.close()
    if result.error is not None:
        raise NoTrialError(str(result.error))
    return result.wrong


class _Result:
    """What a thread leaves for the main one."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.wrong = ""
        self.error: BaseException | None = None
