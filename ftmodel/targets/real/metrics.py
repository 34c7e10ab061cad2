"""Reads a process's metrics page into ftmodel's own names."""

from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ftmodel.systems import MetricRow


def read(page: str, rows: tuple[MetricRow, ...]) -> dict[str, float]:
    """The metrics that `rows` name, each the sum of its series; what the page has not is left out.

    Only the lines of those metrics are parsed: pages are long, and most of them are histograms. A line that cannot be
    parsed is left out too: what the cluster answers never ends the reading.
    """
    wanted = tuple({row.metric for row in rows})
    values: dict[str, float] = {}
    for sample in (sample for line in page.split("\n") if line.startswith(wanted) for sample in _samples(line)):
        for row in rows:
            if sample.name == row.metric and _bears(sample.labels, row) and not math.isnan(sample.value):
                values[row.name] = values.get(row.name, 0.0) + sample.value
    return values


def _samples(line: str) -> list[Sample]:
    try:
        return [sample for family in text_string_to_metric_families(line + "\n") for sample in family.samples]
    except ValueError:
        return []


def _bears(labels: dict[str, str], row: MetricRow) -> bool:
    return all(labels.get(key) == value for key, value in (row.labels or {}).items())
