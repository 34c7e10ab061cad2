"""Orders to die or fail at a token: the lowest stands, each is taken once, and a race with a worker is never lost twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftmodel.targets.real.armed import Orders


class Worker:
    """What a worker does to the folder of orders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def position(self, request_id: str) -> int | None:
        file = self.folder / request_id
        return int(file.read_text().split()[0]) if file.exists() else None

    def how(self, request_id: str) -> str:
        return (self.folder / request_id).read_text().split()[1]

    def take(self, request_id: str) -> None:
        (self.folder / request_id).unlink()


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    return Orders(tmp_path)


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def test_an_order_is_a_file_named_by_the_request_that_holds_the_position(orders: Orders, worker: Worker) -> None:
    orders.give("s1", "id1", 17)
    assert worker.position("id1") == 17
    assert not orders.is_taken("s1", "id1")
    assert [file.name for file in worker.folder.iterdir()] == ["id1"]


def test_the_lowest_order_stands_whatever_was_given_first(orders: Orders, worker: Worker) -> None:
    orders.give("s1", "id1", 60)
    orders.give("s2", "id1", 5)
    orders.give("s3", "id1", 150)
    assert worker.position("id1") == 5


def test_an_order_says_how_and_death_is_what_it_is_for(orders: Orders, worker: Worker) -> None:
    orders.give("s1", "id1", 9)
    assert (worker.folder / "id1").read_text() == "9 die"
    orders.give("s2", "id1", 5, "stall")
    assert (worker.folder / "id1").read_text() == "5 stall"


def test_of_two_orders_for_one_position_the_first_given_stands(orders: Orders, worker: Worker) -> None:
    orders.give("s1", "id1", 5, "error")
    orders.give("s2", "id1", 5, "die")
    assert worker.how("id1") == "error"
    worker.take("id1")
    assert orders.is_taken("s1", "id1")
    assert (worker.position("id1"), worker.how("id1")) == (5, "die")


def test_when_a_worker_has_taken_an_order_the_next_one_stands(orders: Orders, worker: Worker) -> None:
    orders.give("s1", "id1", 60)
    orders.give("s2", "id1", 5)
    worker.take("id1")
    assert not orders.is_taken("s1", "id1")
    assert orders.is_taken("s2", "id1")
    assert worker.position("id1") == 60
    worker.take("id1")
    assert orders.is_taken("s1", "id1")
    assert worker.position("id1") is None


def test_an_order_that_was_taken_stays_so_and_is_taken_once(orders: Orders, worker: Worker) -> None:
    orders.give("s1", "id1", 5)
    worker.take("id1")
    assert orders.is_taken("s1", "id1")
    assert orders.is_taken("s1", "id1")
    orders.give("s2", "id1", 9)
    assert worker.position("id1") == 9
    assert not orders.is_taken("s2", "id1")


def test_orders_for_other_requests_are_others(orders: Orders, worker: Worker) -> None:
    orders.give("s1", "id1", 5)
    orders.give("s2", "id2", 9)
    worker.take("id1")
    assert not orders.is_taken("s2", "id2")
    assert worker.position("id2") == 9


def test_an_order_taken_back_is_gone_and_the_next_one_stands(orders: Orders, worker: Worker) -> None:
    orders.give("s1", "id1", 5)
    orders.give("s2", "id1", 9)
    assert orders.withdraw("s1", "id1")
    assert worker.position("id1") == 9
    assert orders.withdraw("s2", "id1")
    assert worker.position("id1") is None
    assert not orders.is_taken("s1", "id1")


def test_an_order_that_only_waits_is_taken_back_without_touching_the_one_that_stands(
    orders: Orders, worker: Worker
) -> None:
    orders.give("s1", "id1", 5)
    orders.give("s2", "id1", 9)
    assert orders.withdraw("s2", "id1")
    assert worker.position("id1") == 5


def test_an_order_that_a_worker_has_is_not_taken_back(orders: Orders, worker: Worker) -> None:
    orders.give("s1", "id1", 5)
    worker.take("id1")
    assert not orders.withdraw("s1", "id1")
    assert orders.is_taken("s1", "id1")


def test_a_worker_that_takes_the_order_while_it_is_taken_back_has_it(
    orders: Orders, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.give("s1", "id1", 5)
    race(monkeypatch, worker)
    assert not orders.withdraw("s1", "id1")
    assert orders.is_taken("s1", "id1")


def test_a_worker_that_takes_the_order_while_a_lower_one_replaces_it_has_the_one_that_it_read(
    orders: Orders, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.give("s1", "id1", 60)
    race(monkeypatch, worker)
    orders.give("s2", "id1", 5)
    assert orders.is_taken("s1", "id1")
    assert not orders.is_taken("s2", "id1")
    assert worker.position("id1") == 5


def race(monkeypatch: pytest.MonkeyPatch, worker: Worker) -> None:
    """Let the worker take the order of id1 right before the tester first changes the folder."""
    real_unlink, real_write = Path.unlink, Path.write_text

    def win() -> None:
        monkeypatch.setattr(Path, "unlink", real_unlink)
        monkeypatch.setattr(Path, "write_text", real_write)
        worker.take("id1")

    def unlink(path: Path) -> None:
        win()
        real_unlink(path)

    def write_text(path: Path, text: str) -> int:
        win()
        return real_write(path, text)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(Path, "write_text", write_text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(("give", "withdraw", "take", "ask")), st.integers(0, 5), st.integers(1, 99)),
        max_size=15,
    )
)
def test_every_order_is_taken_by_one_death_or_taken_back_never_both(
    moves: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    for file in tmp_path.iterdir():
        file.unlink()
    orders, worker = Orders(tmp_path), Worker(tmp_path)
    given_: dict[str, int] = {}
    back: set[str] = set()
    deaths = 0
    for move, number, position in moves:
        step = f"s{number}"
        live = step in given_ and step not in back
        if move == "give" and step not in given_:
            given_[step] = position
            orders.give(step, "id1", position)
        elif move == "withdraw" and live:
            if orders.withdraw(step, "id1"):
                back.add(step)
        elif move == "take" and worker.position("id1") is not None:
            worker.take("id1")
            deaths += 1
        elif move == "ask" and live:
            orders.is_taken(step, "id1")
    taken = {step for step in given_ if orders.is_taken(step, "id1")}
    assert len(taken) == deaths
    assert not taken & back
    left = [position for step, position in given_.items() if step not in taken | back]
    assert worker.position("id1") == min(left, default=None)
