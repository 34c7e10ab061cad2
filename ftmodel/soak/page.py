"""The page of a soak: one HTML file that needs nothing else."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from ftmodel.invariants import INVARIANTS
from ftmodel.invariants.growth import SAMPLES_LEAST, WARM_REQUESTS, warm_from
from ftmodel.invariants.situations import SITUATIONS
from ftmodel.report import markdown, script
from ftmodel.report.page import PAGE, filled
from ftmodel.slope import Slope, slope
from ftmodel.soak.journal import Journal
from ftmodel.soak.measures import AROUND_S, DURING_S, KINDS, PHASES, quantile
from ftmodel.soak.plots import Line, plot
from ftmodel.soak.totals import Totals

INDEX: Final = "soak.html"
REPORTS: Final = {PAGE: "page", markdown.REPORT: "issue", script.REPRO: "script"}
"""What a finding's report consists of, and the words of the links to it."""
HEAT: Final = 5
"""Shades of the heat map."""
GROWN: Final = ("memory", "fds", "sockets", "threads", "children")
SHOWN: Final = 6
"""Lines of a growth plot."""
TESTER_WARM_SHARE: Final = 0.25
"""Of what the tester used, what is left out of its slope: modules are loaded, the first examples of each kind are played."""
BINS: Final = 60
QUANTILES: Final = (0.5, 0.95, 0.99)
WAITS: Final = {"first": "to the first token", "between": "between two tokens"}


def render(journal: Journal, total: dict[str, Any]) -> str:
    """The page as the text of an HTML file."""
    totals = journal.totals()
    sentences = {situation.id: situation.sentence for situation in SITUATIONS}
    situations = [{"id": name, "sentence": sentences[name], "count": n} for name, n in total["situations"].items()]
    return filled(
        "soak.html",
        title=f"Soak of {', '.join(total['topologies'])}",
        total=total,
        verified=totals.verified,
        made=sum(count["made"] for count in total["faults"].values()),
        findings=[_finding(journal.path.parent, found) for found in total["violations"]],
        against=total.get("against"),
        missed=[row for row in situations if not row["count"]],
        reached=[row for row in situations if row["count"]],
        phases=PHASES,
        heat=_heat(totals),
        growth=_growth(journal),
        warm=WARM_REQUESTS,
        growth_plots=_growth_plots(journal),
        quantiles=[f"{share:.0%}" for share in QUANTILES],
        latency=_latency(totals),
        latency_plots=[_around(totals, what, words) for what, words in WAITS.items()],
        testers=_testers(journal),
        tester_plot=_tester_plot(journal),
        pace=_pace(journal),
        stints=journal.stints(),
    )


def _finding(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    sentence = next((cls.sentence for cls in INVARIANTS if cls.id == found["invariant"]), "")
    example = Path(found["example"])
    links = [
        {"name": name, "to": f"{example.relative_to(folder)}/{file}"}
        for file, name in REPORTS.items()
        if (example / file).is_file()
    ]
    return {**found, "sentence": sentence, "links": links, "smaller": _smaller(found)}


def _smaller(found: dict[str, Any]) -> str:
    shrunk = found["shrunk"]
    if shrunk["to_steps"]:
        until = "" if shrunk["how"] == "done" else ", when the time was over"
        return f"{found['steps']} to {shrunk['to_steps']} steps{until}; that failed {shrunk['rate']}"
    return str(shrunk["why"] or shrunk["how"])


def _heat(totals: Totals) -> list[dict[str, Any]]:
    """A row for each kind of step: how often it was done while a request was in each phase, and the shade of that."""
    counts = totals.flat["coverage"]
    kinds = sorted({key.partition("|")[0] for key in counts})
    most = math.log1p(max(counts.values(), default=1))
    return [
        {
            "kind": kind,
            "cells": [
                {"count": n, "shade": math.ceil(HEAT * math.log1p(n) / most)}
                for n in (counts[f"{kind}|{phase}"] for phase in PHASES)
            ],
        }
        for kind in kinds
    ]


# -- growth


def _growth(journal: Journal) -> list[dict[str, Any]]:
    """For each process that was looked at often, what rose with the requests: slope and interval."""
    rows = []
    for (example, title), samples in journal.usage().items():
        warm = samples[warm_from([row["requests"] for row in samples]) :]
        if len(warm) < SAMPLES_LEAST:
            continue
        slopes = {what: slope([(row["requests"], row[what]) for row in warm]) for what in GROWN}
        hour = slope([(row["at_s"] / 3600, row["memory"]) for row in warm])
        rows.append({
            "example": example, "title": title, "samples": len(warm), "requests": warm[-1]["requests"],
            "cells": [_slope(slopes[what], "memory" in what) for what in GROWN], "hour": _slope(hour, memory=True),
        })  # fmt: skip
    return rows


def _slope(found: Slope | None, memory: bool) -> dict[str, Any]:  # noqa: FBT001 - kilobytes, or pieces
    if found is None:
        return {"text": "", "rises": False}
    unit, letter = (1024, " KiB") if memory else (1, "")
    low, high = found.low / unit, found.high / unit
    return {"text": f"{found.value / unit:.3g}{letter} ({low:.3g} to {high:.3g})", "rises": found.rises}


def _growth_plots(journal: Journal) -> list[Markup]:
    """Memory over requests, of the processes that were looked at most often."""
    usage = journal.usage()
    plots = []
    for role, letter in (("frontends", "f"), ("workers", "w"), ("prefill workers", "p")):
        mine = sorted((key for key in usage if key[1].startswith(letter)), key=lambda key: -len(usage[key]))[:SHOWN]
        lines = [
            Line(name=f"{title} of {example}", points=[(row["requests"], row["memory"] / 2**20) for row in usage[example, title]])
            for example, title in mine
        ]  # fmt: skip
        plots.append(plot(lines, title=f"Memory of {role}", x="requests to the cluster", y="MiB", zero=False))
    return [one for one in plots if one]


# -- latency


def _latency(totals: Totals) -> list[dict[str, Any]]:
    """A row for each kind of wait, before, during and after faults: how many, and the quantiles."""
    counts = totals.nested["latency"]
    keys = [(f"{what} {kind}", words, f"{kind} faults") for what, words in WAITS.items() for kind in KINDS]
    keys.append(("recovery", "to recovery", "over a migration"))
    return [
        {
            "what": words,
            "when": when,
            "count": sum(counts[key].values()),
            "cells": [_ms(quantile(counts[key], share)) for share in QUANTILES],
        }
        for key, words, when in keys
        if key in counts
    ]


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _around(totals: Totals, what: str, words: str) -> Markup:
    """The wait by seconds from the nearest fault, with the time in which it is to be overcome as a band."""
    counts = totals.nested["latency"]
    lines = []
    for share in QUANTILES[:2]:
        found = [(second, quantile(counts.get(f"{what} @{second}", {}), share)) for second in AROUND_S]
        points = [(float(second), 1000 * value) for second, value in found if value is not None]
        lines.append(Line(name=f"{share:.0%} of the waits {words}", points=points))
    return plot(lines, title=f"Wait {words} around a fault", x="seconds from the fault", y="ms", bands=[(0, DURING_S)])


# -- the tester


def _testers(journal: Journal) -> list[dict[str, Any]]:
    rows = []
    for (stint, who), samples in journal.testers().items():
        warm = samples[int(TESTER_WARM_SHARE * len(samples)) :]
        hourly = [slope([(row["at_s"] / 3600, row[what]) for row in warm]) for what in ("memory", "fds", "threads")]
        if hourly[0] is not None:
            rows.append({
                "stint": stint, "who": who, "samples": len(warm), "memory": f"{warm[-1]['memory'] / 2**20:.1f} MiB",
                "cells": [_slope(one, memory=not place) for place, one in enumerate(hourly)],
            })  # fmt: skip
    return rows


def _tester_plot(journal: Journal) -> Markup:
    testers = journal.testers()
    begun_s = min((samples[0]["at_s"] for samples in testers.values()), default=0.0)
    lines = [
        Line(name=f"{who}{f', command {stint}' if stint > 1 else ''}", points=_minutes(samples, begun_s))
        for (stint, who), samples in list(testers.items())[-SHOWN:]
    ]
    return plot(lines, title="Memory of the tester itself", x="minutes", y="MiB")


def _minutes(samples: Sequence[sqlite3.Row], begun_s: float) -> list[tuple[float, float]]:
    return [((row["at_s"] - begun_s) / 60, row["memory"] / 2**20) for row in samples]


def _pace(journal: Journal) -> Markup:
    """Examples a minute over the time."""
    ends = journal.ends()
    if len(ends) < 2:
        return Markup()
    span_s = max(ends[-1] - ends[0], 1.0) / BINS
    counts = [0] * BINS
    for end_s in ends:
        counts[min(BINS - 1, int((end_s - ends[0]) / span_s))] += 1
    points = [((place + 0.5) * span_s / 60, n * 60 / span_s) for place, n in enumerate(counts)]
    return plot([Line(name="examples a minute", points=points)], title="Throughput", x="minutes", y="examples/min")
