"""Ports are given out free, low, and one at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ftmodel.errors import HarnessError
from ftmodel.targets.real import ports
from ftmodel.targets.real.ports import FIRST, LAST, Ports, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def given() -> Iterator[Ports]:
    """Ports of one tester."""
    opened = Ports()
    yield opened
    opened.close()


def test_no_port_is_given_out_twice_before_it_was_given_back(given: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    offers = iter([12000, 12000, 12001, 12000])
    monkeypatch.setattr(ports.random, "randint", lambda _first, _last: next(offers))
    monkeypatch.setattr(ports, "is_free", lambda _port: True)
    assert [given.take(), given.take()] == [12000, 12001]
    given.give_back(12000)
    assert given.take() == 12000


def test_a_port_is_free_and_fits_a_signed_number_of_16_bits(given: Ports) -> None:
    for port in (given.take() for _ in range(20)):
        assert FIRST <= port <= LAST < 1 << 15
        assert is_free(port)


def test_a_port_on_which_somebody_listens_is_not_free(taken: int) -> None:
    assert not is_free(taken)


def test_a_port_on_which_somebody_listens_at_every_address_is_not_free() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_a_wanted_port_is_given_if_it_is_free(given: Ports) -> None:
    port = given.take()
    given.give_back(port)
    assert given.take(port) == port


def test_a_wanted_port_that_is_taken_is_told_with_how_to_see_by_whom(taken: int) -> None:
    with pytest.raises(HarnessError, match=f"port {taken}: taken by another process.*ss -ltnp 'sport = :{taken}'"):
        Ports().take(taken)


def test_a_wanted_port_that_is_out_is_refused(given: Ports) -> None:
    with pytest.raises(HarnessError, match="taken"):
        given.take(given.take())


def test_that_no_port_is_free_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _port: False)
    with pytest.raises(HarnessError, match=f"no free port between {FIRST} and {LAST}"):
        Ports().take()


def test_a_port_that_is_not_out_may_be_given_back() -> None:
    Ports().give_back(12000)


def test_two_testers_are_never_given_the_same_port(given: Ports) -> None:
    port = given.take()
    other = Ports()
    with pytest.raises(HarnessError, match=f"port {port}: taken"):
        other.take(port)
    given.give_back(port)
    assert other.take(port) == port
    other.close()
