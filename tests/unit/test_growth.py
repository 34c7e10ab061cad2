"""Growth: a slope is told from noise, and what grows from what only warms up."""

from __future__ import annotations

import json
import os
import random
import threading
from dataclasses import replace
from pathlib import Path

from mutations_of_usage import usages
from planting import at

from ftmodel.bounds import Bounds
from ftmodel.history import Usage
from ftmodel.invariants.growth import REQUESTS_LEAST, growth, is_enough, warm_from
from ftmodel.slope import slope
from ftmodel.targets.real.usage import used


def test_a_slope_is_found_in_noise_with_outliers() -> None:
    rng = random.Random(1)
    points = [(float(n), 3.0 * n + rng.gauss(0, 5) + (500 if n % 17 == 0 else 0)) for n in range(100)]
    found = slope(points)
    assert found is not None
    assert found.low < 3.0 < found.high
    assert found.high - found.low < 0.2
    assert found.rises


def test_noise_has_no_slope() -> None:
    rng = random.Random(2)
    rising = sum(slope([(n, rng.gauss(0, 5)) for n in range(40)]).rises for _ in range(200))  # type: ignore[union-attr]
    assert rising < 16  # 2.5 % of them, and what chance allows


def test_too_few_points_have_no_slope() -> None:
    assert slope([]) is None
    assert slope([(1, 1), (2, 2)]) is None
    assert slope([(1, 1), (1, 2), (1, 3)]) is None


def test_what_rises_by_less_than_its_bound_is_no_growth() -> None:
    assert growth(usages("w1", 10.0, "fds", 0.05), "fds", 0.1) is None
    found = growth(usages("w1", 10.0, "fds", 0.5), "fds", 0.1)
    assert found is not None
    assert 0.4 < found.slope.value < 0.6


def test_few_samples_tell_nothing() -> None:
    assert is_enough(usages("w1", 10.0, "fds", 0.5))
    assert not is_enough(usages("w1", 10.0, "fds", 0.5)[:11])
    assert not is_enough([usage for usage in usages("w1", 10.0, "fds", 0.5) if usage.requests < REQUESTS_LEAST])


def recorded(name: str) -> list[Usage]:
    """What a frontend used, as recorded on 1.4.2: `short` by a soak, `long` by docs/findings/growth.py --kill-every 40."""
    rows = json.loads((Path(__file__).parent / "recorded" / "frontend-memory.json").read_text())[name]
    return [
        Usage(at=at(n), title="frontend-1", requests=requests, memory=memory, fds=40, sockets=9, threads=20, children=0)
        for n, (requests, memory) in enumerate(rows)
    ]


def after_warming(usages: list[Usage]) -> list[Usage]:
    return usages[warm_from([usage.requests for usage in usages]) :]


def test_a_frontend_that_warms_up_does_not_leak() -> None:
    short, long = recorded("short"), recorded("long")
    assert growth(short, "memory", Bounds().leak_bytes) is not None  # 33 KiB a request
    assert not is_enough(after_warming(short))
    assert is_enough(after_warming(long))
    found = slope([(usage.requests, usage.memory) for usage in after_warming(long)])
    assert found is not None
    assert found.high < 1024


def test_a_leak_is_found_after_the_warm_up() -> None:
    leaking = [replace(usage, memory=usage.memory + 20_000 * usage.requests) for usage in recorded("long")]
    assert growth(after_warming(leaking), "memory", Bounds().leak_bytes) is not None


def test_what_a_process_uses_is_seen() -> None:
    before = used(os.getpid())
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    read, write = os.pipe()
    after = used(os.getpid())
    stop.set()
    thread.join()
    os.close(read)
    os.close(write)
    assert before is not None
    assert after is not None
    assert (after.threads - before.threads, after.fds - before.fds, after.sockets - before.sockets) == (1, 2, 0)
    assert before.memory > 1 << 20


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert used(2**22 + 1) is None
