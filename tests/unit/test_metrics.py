"""A metrics page is read into ftmodel's own names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftmodel.systems import MetricRow
from ftmodel.targets.real import metrics

ROWS = (
    MetricRow(role="frontend", name="inflight", metric="a_inflight"),
    MetricRow(role="frontend", name="success", metric="a_requests_total", labels={"status": "success"}),
    MetricRow(role="frontend", name="failed", metric="a_requests_total", labels={"status": "error"}),
    MetricRow(role="worker", name="running", metric="vllm:running"),
)

PAGE = """\
# HELP a_inflight Requests.
# TYPE a_inflight gauge
a_inflight{model="x"} 2
a_inflight{model="y, \\"z\\""} 3
# TYPE a_requests_total counter
a_requests_total{model="x",status="success"} 5
a_requests_total{model="y",status="success"} 6
a_requests_total{model="y",status="error"} 1
a_inflight_seconds_bucket{le="0.5"} 100
vllm:running{engine="0"} 1.0
vllm:running_total 77
"""


def test_a_metric_is_the_sum_over_the_series_that_bear_its_labels() -> None:
    assert metrics.read(PAGE, ROWS) == {"inflight": 5, "success": 11, "failed": 1, "running": 1}


def test_a_metric_that_the_page_has_not_is_left_out() -> None:
    assert metrics.read("a_inflight 0\n", ROWS) == {"inflight": 0}
    assert metrics.read("", ROWS) == {}
    assert metrics.read(PAGE, ()) == {}


def test_a_metric_whose_series_bear_other_labels_is_left_out() -> None:
    assert metrics.read('a_requests_total{status="timeout"} 4\na_requests_total 9\n', ROWS) == {}


def test_what_is_not_a_number_is_left_out_of_the_sum() -> None:
    assert metrics.read('a_inflight{m="x"} NaN\na_inflight{m="y"} 2\n', ROWS) == {"inflight": 2}
    assert metrics.read("a_inflight NaN\n", ROWS) == {}


def test_two_names_may_read_the_same_series() -> None:
    rows = (*ROWS[:1], MetricRow(role="frontend", name="again", metric="a_inflight"))
    assert metrics.read("a_inflight 2\n", rows) == {"inflight": 2, "again": 2}


def test_only_the_lines_of_wanted_metrics_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    real = metrics.text_string_to_metric_families

    def spy(text: str) -> object:
        parsed.append(text)
        return real(text)

    monkeypatch.setattr(metrics, "text_string_to_metric_families", spy)
    metrics.read("a_inflight 1\n" + 'b_bucket{le="1"} 2\n' * 1000, ROWS)
    assert "".join(parsed) == "a_inflight 1\n"


@pytest.mark.parametrize(
    "line", ["a_inflight", "a_inflight one", 'a_inflight{m="x} 1', "a_inflight{m=x} 1", 'a_inflight{m="']
)
def test_a_line_that_cannot_be_parsed_is_left_out_and_the_others_are_read(line: str) -> None:
    assert metrics.read(f"{line}\na_inflight 2\nvllm:running 1", ROWS) == {"inflight": 2, "running": 1}


@given(st.text().map(lambda text: f"a_inflight{text}"))
def test_no_page_breaks_the_reading(page: str) -> None:
    assert set(metrics.read(page, ROWS)) <= {"inflight"}
