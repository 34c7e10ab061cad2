"""What is found: which finding is confirmed or made smaller next, what that came to, and where its example lies."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from typing import Any, Final

from ftmodel import known, planfile
from ftmodel.errors import StoreError
from ftmodel.soak import bugs
from ftmodel.soak.bugs import Bug, Purse, Shrinking
from ftmodel.soak.journal import Journal, Played
from ftmodel.soak.rounds import Round
from ftmodel.soak.wish import Wish
from ftmodel.steps import Plan

LONG_S: Final = 60.0
"""A plan that takes so long is replayed once at a time."""
WORTH_S: Final = 5.0
"""With less time than this nothing is made smaller."""
SCRIPTS: Final = 3
"""How often the script of a finding's report is run ..."""
SCRIPTS_FROM_S: Final = 60.0
"""... if there is so much time for making it smaller."""


class Findings:
    """All that a soak has found, and the time that may be spent on it."""

    def __init__(self, journal: Journal, wish: Wish, said: Callable[[str], None]) -> None:
        self.bugs: dict[str, Bug] = {bug.signature: bug for bug in journal.bugs()}
        self.purse = Purse()
        self._journal = journal
        self._wish = wish
        self._said = said
        self._again: set[str] = set()
        """What is being confirmed, or made smaller."""

    def mend(self) -> None:
        """What a killed soak did not get to: set findings apart, as long as their examples are there."""
        for bug in self.bugs.values():
            if not (self._wish.folder / bug.folder).is_dir():
                self._set_apart(bug)

    # -- what is played next

    def next(self, number: int, until_s: float) -> Round | None:
        """The plan of a finding, some times over, or to be made smaller, as long as there is time for that.

        `until_s`: on the monotonic clock, when the soak is over.
        """
        names = {top.name for top in self._wish.topologies}
        for bug in sorted(self.bugs.values(), key=lambda bug: bug.state == "confirmed"):
            if self.purse.left_s <= 0:
                return None
            if bug.signature not in self._again and (bug.wants_replays or bug.wants_shrinking):
                plan = self._journal.plan(bug.example)
                this = None
                if plan.topology in names and bug.wants_replays:
                    this = self._confirms(number, bug, plan)
                elif plan.topology in names:
                    this = self._shrinks(number, bug, plan, until_s)
                if this is not None:
                    self._again.add(bug.signature)
                    return this
        return None

    def _confirms(self, number: int, bug: Bug, plan: Plan) -> Round:
        count = bugs.REPLAYS if bug.seconds < LONG_S else 1
        return Round(
            number=number, source="confirm", topology=plan.topology, seed=self._wish.seed, mix=plan.mix,
            examples=count, plans=(plan,) * count, signature=bug.signature,
        )  # fmt: skip

    def _shrinks(self, number: int, bug: Bug, plan: Plan, until_s: float) -> Round | None:
        """None if it is left as it is, or if there is too little time now."""
        left = bugs.left_as_it_is(bug, self._wish.seconds, self._wish.setup.width)
        if left is None and not (self._wish.folder / bug.folder).is_dir():
            self._set_apart(bug)
        if left is None and not (self._wish.folder / bug.folder).is_dir():
            left = dataclasses.replace(bug, shrunk="failed", why="its example was not kept")
        if left is not None:
            self._keep(left)
            return None
        wanted_s = max(WORTH_S, bugs.budget_s(bug, self._wish.seconds))
        budget_s = min(wanted_s, self.purse.left_s, until_s - time.monotonic())
        if budget_s < WORTH_S:
            return None
        self._keep(dataclasses.replace(bug, tries=bug.tries + 1))
        self.purse.promised[number] = budget_s
        return Round(
            number=number, source="shrink", topology=plan.topology, seed=self._wish.seed, mix=plan.mix, examples=0,
            signature=bug.signature, folder=bug.folder, budget_s=round(budget_s, 1),
            scripts=SCRIPTS if budget_s >= SCRIPTS_FROM_S else 0,
        )  # fmt: skip

    def leave(self, this: Round) -> None:
        """A round is over, or lost: what it looked for may be looked for again."""
        self._again.discard(this.signature)
        self.purse.promised.pop(this.number, None)

    # -- what became of it

    def put(self, bug: Bug) -> None:
        """This is known of it now: tell what is new in that."""
        before, self.bugs[bug.signature] = self.bugs.get(bug.signature), bug
        if before is None:
            self._said(f"found {bug.signature}{' (known)' * bug.known} in {bug.example}: {bug.message}")
        elif before.state != bug.state:
            self._said(f"{bug.state} {bug.signature}: seen again {bug.seen} of {bug.replays} times")
        elif bug.shrunk and bug.shrunk != before.shrunk:
            self._said(f"shrinking of {bug.signature}: {smaller(bug)}")

    def _keep(self, bug: Bug) -> None:
        self._journal.put_bugs([bug])
        self.put(bug)

    def changed(self, this: Round | None, played: Played, version: str) -> list[Bug]:
        """The bugs of which this example tells something. A replay counts for what it replays, and for what is new."""
        signatures = list(played.signatures)
        changed: list[Bug] = []
        if this is not None and this.source == "confirm":
            if played.verdict != "unknown":
                changed = [bugs.replayed(self.bugs[this.signature], seen=this.signature in signatures)]
            signatures = [signature for signature in signatures if signature not in self.bugs]
        if this is not None and this.source == "shrink":
            bug = self.bugs[this.signature]
            changed = [dataclasses.replace(bug, spent_s=bug.spent_s + played.seconds / self._wish.setup.width)]
            signatures = [signature for signature in signatures if signature not in self.bugs]
        issues = known.of_findings(signatures, version, played.topology, self._wish.issues)
        messages = {finding["signature"]: finding["message"] for finding in reversed(played.findings)}
        steps = len(planfile.parse(played.plan, played.name).steps) if signatures else 0
        for signature in signatures:
            before = self.bugs.get(signature)
            bug = bugs.found(
                before, signature, known=signature in issues, example=played.name, steps=steps,
                seconds=played.seconds, message=messages[signature],
            )  # fmt: skip
            if before is None or bug.example != before.example:
                self._set_apart(bug, played.folder)
            changed.append(bug)
        return changed

    def _set_apart(self, bug: Bug, folder: str = "") -> None:
        """Copy the folder of the example that shows a finding to where it stays."""
        to = self._wish.folder / bug.folder
        aside = sorted(
            self._wish.folder.glob(f"findings/*/aside/{to.name}")
        )  # what was seen while another was made smaller
        sources = [self._wish.folder / (folder or f"examples/{bug.example}"), *aside]
        source = next((one for one in sources if (one / "history.jsonl").is_file()), None)
        if source is None:
            return
        new = to.with_name(f"{to.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        try:
            shutil.copytree(source, new)
        except OSError as error:
            raise StoreError(f"{new}: {error}: expected room for the example; try: df -h {self._wish.folder}") from None
        shutil.rmtree(to, ignore_errors=True)
        new.rename(to)

    def shrunk(self, row: dict[str, Any]) -> None:
        """A finding was made smaller, as far as the time went."""
        self.purse.spend(row["seconds"])
        bug = self.bugs[row["signature"]]
        if "why" in row:
            bug = dataclasses.replace(bug, shrunk="failed", why=row["why"])
        elif not row["reproduced"]:
            bug = dataclasses.replace(bug, shrunk="not reproduced")
        else:
            how: Shrinking = "done" if row["done"] else "out of time"
            rate = f"{row['rate']['failed']:.0f} of {row['rate']['of']:.0f}"
            bug = dataclasses.replace(bug, shrunk=how, to_steps=row["to_steps"], rate=rate)
        self._keep(bug)


def smaller(bug: Bug) -> str:
    """What making it smaller came to, in words."""
    match bug.shrunk:
        case "":
            return ""
        case "not reproduced":
            return "not reproduced"
        case "done" | "out of time" if bug.to_steps:
            return f"{bug.steps} steps to {bug.to_steps}, failed {bug.rate}" + ", out of time" * (bug.shrunk != "done")
        case _:
            return f"left as it is: {bug.why}"
