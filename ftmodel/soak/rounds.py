"""What a round is: a seed and a mix, from which its plans are drawn, the same whenever they are.

Each round draws which kinds of steps are on and with which weights (a swarm), so that over many rounds each kind meets
each other one, alone and in company. What leads to situations that were never reached is on more often, and weighs more.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from ftmodel import planfile, services
from ftmodel.steps import Heal, Mix, Plan, Settle, Step
from ftmodel.topology import Topology

Source = Literal["drawn", "lasting", "corpus", "confirm", "shrink"]
"""Where its plans come from: drawn; drawn and played one after the other on one cluster that lasts; kept from before;
that of a finding, some times over; smaller ones of it."""
LASTING_EVERY: Final = 24
"""One round of a topology in so many is a lasting one ..."""
LASTING_AT: Final = 3
"""... this one first."""
PARTS: Final = 100
"""Plans that are played one after the other on a cluster that lasts: they send some 1,100 requests, of which R3 and R4 need 900."""
EXAMPLES: Final = 6
"""Examples of a round: of one mix, so that what a mix leads to has a chance to be seen, and few enough to lose."""
RARE: Final = 3
"""A situation that was reached less often is rare: the plan that reached it is kept."""
PLAIN_EVERY: Final = 12
"""One round in so many is traffic alone: what is found there needs no fault."""
FAULTY: Final = (
    "kill_worker", "stop_worker", "freeze_worker", "cancel", "bad_request", "slow_reader", "engine_error",
    "kill_engine", "frontend", "race", "storm", "restart", "drain", "roll", "service", "prefill",
)  # fmt: skip
"""The kinds of steps that are on or off."""
WEIGHTS: Final = (1, 1, 1, 2, 2, 4)
LIKELY: Final = 0.35
WANTED_LIKELY: Final = 0.6
SUBMITS: Final = 2
"""Requests for a fault."""
LOSING: Final = ("kill_worker", "stop_worker", "freeze_worker", "kill_engine", "race", "drain", "prefill")
"""Of them those after which workers are missed: the more they weigh, the more are started."""
WORDS: Final[dict[str, tuple[str, ...]]] = {
    "killed": ("kill_worker", "race"), "dying": ("kill_worker",), "kill": ("kill_worker", "race"), "kills": ("race",),
    "cancelled": ("cancel",), "cancel": ("cancel", "race"), "migrated": ("kill_worker",),
    "migration": ("kill_worker",), "migratable": ("kill_worker",), "limit": ("kill_worker", "storm"),
    "frozen": ("freeze_worker",), "freeze": ("freeze_worker",), "thaw": ("freeze_worker",),
    "draining": ("stop_worker", "drain"), "drained": ("stop_worker", "drain"), "drain": ("stop_worker", "drain"),
    "sigterm": ("drain",), "frontend": ("frontend",), "queued": ("storm",), "overload": ("storm",),
    "started": ("restart",), "back": ("restart",), "newcomer": ("restart", "kill_worker"), "gone": ("roll",),
    "replaced": ("roll",), "no": ("kill_worker", "roll"), "ghost": ("kill_worker",), "slow": ("slow_reader",),
    "bad": ("bad_request",), "engine": ("engine_error", "storm"), "stall": ("engine_error",), "prefill": ("prefill",),
    "decode": ("prefill",), "outage": ("service",), "plane": ("service",),
}  # fmt: skip
"""By the words of a situation's id: the kinds of steps that lead to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a lane is told to play. `plans` are given where they are not drawn."""

    number: int
    source: Source
    topology: str
    seed: int
    mix: Mix = field(default_factory=Mix)
    examples: int = EXAMPLES
    steps: int = 30
    plans: tuple[Plan, ...] = ()
    patient: bool = True
    """False near the end of the soak: then the drawn plans are not, so that they come to their end in time."""
    signature: str = ""
    """Of a round that confirms or shrinks: what is looked for."""
    folder: str = ""
    """Of a round that shrinks: where its example lies, below the soak's folder."""
    budget_s: float = 0.0
    """Likewise: how long it may take."""
    scripts: int = 0
    """Likewise: how often the script of its report is run."""

    def named(self, index: int) -> str:
        """The name of its example, from 1."""
        return f"{self.number:05d}-{index:02d}"


_ROUND: Final[TypeAdapter[Round]] = TypeAdapter(Round)


def as_json(this: Round) -> dict[str, Any]:
    """A round as JSON, plans as the text of plan files."""
    row: dict[str, Any] = _ROUND.dump_python(dataclasses.replace(this, plans=()), mode="json")
    return {**row, "plans": [planfile.dump(plan) for plan in this.plans]}


def of_json(row: dict[str, Any]) -> Round:
    """The round of such a row. Raises PlanError."""
    plans = tuple(planfile.parse(text, f"round {row['number']}") for text in row["plans"])
    return dataclasses.replace(_ROUND.validate_python({**row, "plans": ()}), plans=plans)


def seed_of(soak_seed: int, number: int) -> int:
    """The seed of a drawn round: a number that a person can type."""
    return random.Random(f"{soak_seed}/{number}").randrange(2**32)  # noqa: S311 - no secret


def drawn(number: int, top: Topology, *, soak_seed: int, steps: int, missing: Collection[str]) -> Round:
    """The next round: its seed, and a mix that leans towards the situations that are missing."""
    seed = seed_of(soak_seed, number)
    mix = swarm(random.Random(seed), top, missing)  # noqa: S311 - likewise
    return Round(number=number, source="drawn", topology=top.name, seed=seed, mix=mix, steps=steps)


def lasting(number: int, top: Topology, *, soak_seed: int, steps: int) -> Round:
    """A round on one cluster that lasts, whose processes mostly live: there it shows what grows."""
    seed = seed_of(soak_seed, number)
    rng = random.Random(seed)  # noqa: S311 - likewise
    mix = Mix(
        submit=14, cancel=rng.choice((2, 4)), start_worker=1, kill_worker=rng.choice((0, 1)), stop_worker=0, settle=4,
        bad_request=rng.choice((0, 1)), slow_reader=rng.choice((0, 1)), storm=2,
    )  # fmt: skip
    return Round(
        number=number, source="lasting", topology=top.name, seed=seed, mix=mix, examples=PARTS, steps=max(1, steps // 2)
    )  # fmt: skip


def joined(plans: Sequence[Plan]) -> Plan:
    """One plan of all their steps, after each plan a settle and a heal; the head is the first one's.

    Steps get names of their own: those of the second plan begin with 2., and so on.
    """
    steps: list[Step] = []
    for number, plan in enumerate(plans, start=1):
        row = json.loads(planfile.dump(plan))
        names = {step.name for step in plan.steps}
        row["steps"] = [_renamed(step, names, f"{number}.") for step in row["steps"]]
        steps += planfile.parse(json.dumps(row), f"part {number}").steps
        steps += [Settle(name=f"{number}.settle"), Heal(name=f"{number}.heal"), Settle(name=f"{number}.rest")]
    return dataclasses.replace(plans[0], patience="short", steps=tuple(steps))


def _renamed(value: Any, names: set[str], prefix: str) -> Any:
    """The same JSON with this before each of these names."""
    if isinstance(value, dict):
        return {key: _renamed(part, names, prefix) for key, part in value.items()}
    return prefix + value if isinstance(value, str) and value in names else value


def leads(situation: str) -> set[str]:
    """The kinds of steps that lead to a situation, by the words of its id."""
    return {kind for word in situation.split("-") for kind in WORDS.get(word, ())}


def swarm(rng: random.Random, top: Topology, missing: Collection[str]) -> Mix:
    """Which kinds are on, and with which weights; on a topology without services or prefill workers not those.

    A kind that leads to a missing situation is on more often and weighs more. There are twice as many requests as faults,
    and workers are started as often as they are lost, so that the cluster is mostly alive.
    """
    if rng.randrange(PLAIN_EVERY) == 0:
        return Mix(start_worker=0, kill_worker=0, stop_worker=0, cancel=0)
    wanted = {kind for situation in missing for kind in leads(situation)}
    absent = set() if services.names_of([top]) else {"service"}
    absent |= set() if top.prefill_workers else {"prefill"}
    weights: dict[str, int] = {}
    for kind in FAULTY:
        likely, weight = rng.random(), rng.choice(WEIGHTS)
        on = likely < (WANTED_LIKELY if kind in wanted else LIKELY)
        weights[kind] = weight + (kind in wanted) if on and kind not in absent else 0
    lost = sum(weights[kind] for kind in LOSING)
    return Mix(
        submit=max(5, SUBMITS * (sum(weights.values()) - weights["cancel"])),
        start_worker=max(2, lost),
        settle=rng.choice((1, 2, 3)) + lost // 2,
        heal=rng.choice((0, 1, 2)) + lost // 4,
        **weights,
    )


def words(mix: Mix) -> str:
    """The mix as a line tells it: what is on, with its weight."""
    return " ".join(f"{name.replace('_', '-')} {weight}" for name, weight in dataclasses.asdict(mix).items() if weight)
