"""journal.sqlite: what a soak knows, in one file (WAL). Each method is a transaction, so that what it told is kept.

Used from one thread. A soak that was killed goes on from here: rounds that were under way are lost, nothing else is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from ftmodel import planfile
from ftmodel.errors import StoreError
from ftmodel.soak import rounds
from ftmodel.soak.bugs import Bug
from ftmodel.soak.rounds import Round
from ftmodel.soak.totals import Totals
from ftmodel.steps import Plan
from ftmodel.targets.real.usage import Used

NAME: Final = "journal.sqlite"
FORMAT: Final = 2
"""Version of the tables, as they tell it themselves."""
SUFFIX: Final = "-soak"
"""How the name of a soak's folder in a store ends, but for a number."""
_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO meta VALUES ('format', '2');
CREATE TABLE stints (id INTEGER PRIMARY KEY, began_s REAL NOT NULL, ended_s REAL, how TEXT NOT NULL DEFAULT 'killed');
CREATE TABLE rounds (
  number INTEGER PRIMARY KEY, stint INTEGER NOT NULL, lane TEXT NOT NULL, source TEXT NOT NULL, topology TEXT NOT NULL,
  seed INTEGER NOT NULL, row BLOB NOT NULL, state TEXT NOT NULL, began_s REAL NOT NULL, ended_s REAL);
CREATE TABLE examples (
  name TEXT PRIMARY KEY, round INTEGER NOT NULL, topology TEXT NOT NULL, verdict TEXT NOT NULL, doubt TEXT NOT NULL,
  seconds REAL NOT NULL, at_s REAL NOT NULL, folder TEXT NOT NULL, kept INTEGER NOT NULL DEFAULT 1,
  plan BLOB NOT NULL, counts BLOB NOT NULL);
CREATE TABLE findings (
  example TEXT NOT NULL, signature TEXT NOT NULL, subject TEXT NOT NULL, message TEXT NOT NULL,
  PRIMARY KEY (example, signature, subject));
CREATE INDEX findings_by_signature ON findings (signature);
CREATE TABLE bugs (signature TEXT PRIMARY KEY, row TEXT NOT NULL);
CREATE TABLE usage (
  example TEXT NOT NULL, title TEXT NOT NULL, at_s REAL NOT NULL, requests INTEGER NOT NULL, memory INTEGER NOT NULL,
  fds INTEGER NOT NULL, sockets INTEGER NOT NULL, threads INTEGER NOT NULL, children INTEGER NOT NULL);
CREATE TABLE testers (
  stint INTEGER NOT NULL, at_s REAL NOT NULL, who TEXT NOT NULL, memory INTEGER NOT NULL, fds INTEGER NOT NULL,
  threads INTEGER NOT NULL);
CREATE TABLE corpus (
  digest TEXT PRIMARY KEY, topology TEXT NOT NULL, plan BLOB NOT NULL, why TEXT NOT NULL, at_s REAL NOT NULL,
  stint INTEGER NOT NULL);
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of one example, as a lane tells it."""

    name: str
    round: int
    topology: str
    verdict: str
    doubt: str
    """Why it is unknown, if it is."""
    seconds: float
    folder: str
    """Below the soak's; empty if nothing of it is kept."""
    plan: str
    """The text of its plan file."""
    counts: Mapping[str, Any]
    findings: tuple[Mapping[str, str], ...] = ()
    """Each with signature, subject and message."""
    usage: Sequence[Sequence[Any]] = ()
    """What its processes used, if they were looked at often: rows of `ftmodel.soak.measures`."""

    @property
    def signatures(self) -> tuple[str, ...]:
        """What was found, each once."""
        return tuple(dict.fromkeys(finding["signature"] for finding in self.findings))


@dataclasses.dataclass(frozen=True, slots=True)
class Lying:
    """An example whose folder is there, and what was found in it."""

    name: str
    signatures: tuple[str, ...] = ()


class Journal:
    """A context: on leaving it the file is closed."""

    def __init__(self, path: Path) -> None:
        """Open the journal, or make it. Raises StoreError."""
        self.path = path
        with _told(path):
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                self._db.executescript(f"BEGIN;{_TABLES}COMMIT;")
        found = self.meta("format")
        if found != str(FORMAT):
            raise StoreError(
                f"{path}: journal format {found!r}, expected {FORMAT}: written by another ftmodel;"
                " try: pip install --upgrade ftmodel"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _told(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _read(self, query: str, *values: object) -> list[sqlite3.Row]:
        with _told(self.path):
            return self._db.execute(query, values).fetchall()

    # -- what the soak is

    def meta(self, key: str) -> str | None:
        """A fact about the soak."""
        found = self._read("SELECT value FROM meta WHERE key = ?", key)
        return str(found[0]["value"]) if found else None

    def set_meta(self, **facts: str) -> None:
        """Put down facts about the soak."""
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(facts.items()))

    def begin_stint(self) -> int:
        """One command begins: rounds that another one had under way are lost. Returns its number."""
        with self._writing() as db:
            db.execute("UPDATE rounds SET state = 'lost' WHERE state = 'begun'")
            return int(db.execute("INSERT INTO stints (began_s) VALUES (?)", (time.time(),)).lastrowid or 0)

    def end_stint(self, stint: int, how: str) -> None:
        """It has come to its end: `done` or `stopped`."""
        with self._writing() as db:
            db.execute("UPDATE stints SET ended_s = ?, how = ? WHERE id = ?", (time.time(), how, stint))

    def stints(self) -> list[tuple[float, float | None, str]]:
        """Of each command: when it began and ended, in Unix time, and how; `killed` until it has ended."""
        return [(row["began_s"], row["ended_s"], row["how"]) for row in self._read("SELECT * FROM stints ORDER BY id")]

    # -- rounds and examples

    def begin_round(self, stint: int, lane: str, this: Round) -> None:
        """A lane is given a round."""
        row = zlib.compress(json.dumps(rounds.as_json(this)).encode())
        with self._writing() as db:
            db.execute(
                "INSERT INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, 'begun', ?, NULL)",
                (this.number, stint, lane, this.source, this.topology, this.seed, row, time.time()),
            )

    def end_round(self, number: int, state: str) -> None:
        """It is `done`, or `lost` with its lane."""
        with self._writing() as db:
            db.execute("UPDATE rounds SET state = ?, ended_s = ? WHERE number = ?", (state, time.time(), number))

    def round(self, number: int) -> Round:
        """A round as it was given to a lane. Raises StoreError if there is none."""
        found = self._read("SELECT row FROM rounds WHERE number = ?", number)
        if not found:
            last = self.last_round()
            raise StoreError(f"{self.path}: no round {number}, expected 1 to {last}; try: --round {last}")
        return rounds.of_json(json.loads(zlib.decompress(found[0]["row"])))

    def last_round(self) -> int:
        """The highest number; 0 if there is none."""
        return int(self._read("SELECT coalesce(max(number), 0) AS n FROM rounds")[0]["n"])

    def rounds(self) -> dict[str, int]:
        """How many are in each state: begun, done, lost."""
        return {row["state"]: row["n"] for row in self._read("SELECT state, count(*) AS n FROM rounds GROUP BY state")}

    def add_example(self, played: Played, bugs: Sequence[Bug] = ()) -> None:
        """An example has come to its end; these bugs are changed by it. A name that is there already is replaced."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO examples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    played.name, played.round, played.topology, played.verdict, played.doubt, played.seconds,
                    time.time(), played.folder, bool(played.folder), zlib.compress(played.plan.encode()),
                    zlib.compress(json.dumps(played.counts).encode()),
                ),
            )  # fmt: skip
            db.executemany(
                "INSERT OR REPLACE INTO findings VALUES (?, ?, ?, ?)",
                [(played.name, f["signature"], f["subject"], f["message"]) for f in played.findings],
            )
            db.executemany(
                "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [(played.name, *row) for row in played.usage]
            )
            _put_bugs(db, bugs)

    def totals(self) -> Totals:
        """The counts over all examples."""
        total = Totals()
        with _told(self.path):
            for row in self._db.execute("SELECT seconds, counts FROM examples WHERE round > 0"):
                total.add(json.loads(zlib.decompress(row["counts"])), row["seconds"])
        return total

    def ends(self) -> list[float]:
        """When each example had come to its end, in Unix time, in order."""
        return [row["at_s"] for row in self._read("SELECT at_s FROM examples WHERE round > 0 ORDER BY at_s")]

    def doubts(self) -> list[tuple[str, str]]:
        """The examples that are unknown, and why."""
        return [
            (row["name"], row["doubt"])
            for row in self._read("SELECT name, doubt FROM examples WHERE verdict = 'unknown' ORDER BY name")
        ]

    def plan(self, example: str) -> Plan:
        """The plan of an example. Raises StoreError if there is no such example."""
        found = self._read("SELECT plan FROM examples WHERE name = ?", example)
        if not found:
            raise StoreError(f"{self.path}: no example {example!r}")
        return planfile.parse(zlib.decompress(found[0]["plan"]).decode(), f"{self.path}: example {example}")

    # -- what grows

    def usage(self) -> dict[tuple[str, str], list[sqlite3.Row]]:
        """By example and title: what each process used that was looked at often, in order."""
        found: dict[tuple[str, str], list[sqlite3.Row]] = {}
        for row in self._read("SELECT * FROM usage ORDER BY example, title, at_s"):
            found.setdefault((row["example"], row["title"]), []).append(row)
        return found

    def add_testers(self, stint: int, used: Mapping[str, Used]) -> None:
        """What the tester's own processes use now, by name."""
        now_s = time.time()
        with self._writing() as db:
            db.executemany(
                "INSERT INTO testers VALUES (?, ?, ?, ?, ?, ?)",
                [(stint, now_s, who, one.memory, one.fds, one.threads) for who, one in used.items()],
            )

    def testers(self) -> dict[tuple[int, str], list[sqlite3.Row]]:
        """By stint and name: what each of the tester's processes used, in order."""
        found: dict[tuple[int, str], list[sqlite3.Row]] = {}
        for row in self._read("SELECT * FROM testers ORDER BY stint, who, at_s"):
            found.setdefault((row["stint"], row["who"]), []).append(row)
        return found

    # -- what was found

    def bugs(self) -> list[Bug]:
        """By signature, in order."""
        return [Bug(**json.loads(row["row"])) for row in self._read("SELECT row FROM bugs ORDER BY signature")]

    def put_bugs(self, bugs: Sequence[Bug]) -> None:
        """Put down what is known of these now."""
        with self._writing() as db:
            _put_bugs(db, bugs)

    # -- what is replayed first

    def keep(self, plan: Plan, why: str, stint: int) -> None:
        """Keep a plan to be replayed when a soak begins."""
        text = planfile.dump(plan)
        digest = hashlib.sha256(text.encode()).hexdigest()
        with self._writing() as db:
            db.execute(
                "INSERT OR IGNORE INTO corpus VALUES (?, ?, ?, ?, ?, ?)",
                (digest, plan.topology, zlib.compress(text.encode()), why, time.time(), stint),
            )

    def corpus(self, before: int | None = None) -> list[tuple[Plan, str]]:
        """The plans that are kept, oldest first, and why; those of earlier stints than `before`, if that is given."""
        rows = self._read("SELECT * FROM corpus WHERE stint < ? ORDER BY at_s", 1 << 62 if before is None else before)
        return [
            (planfile.parse(zlib.decompress(row["plan"]).decode(), f"{self.path}: corpus"), row["why"]) for row in rows
        ]

    # -- what lies in the store

    def lying(self) -> list[Lying]:
        """Examples whose folders are there, oldest first."""
        rows = self._read(
            "SELECT name, (SELECT group_concat(DISTINCT signature) FROM findings WHERE example = name) AS found"
            " FROM examples WHERE kept = 1 ORDER BY at_s"
        )
        return [Lying(row["name"], tuple((row["found"] or "").split(",")) if row["found"] else ()) for row in rows]

    @property
    def size(self) -> int:
        """Bytes of the journal's files."""
        return sum(path.stat().st_size for path in self.path.parent.glob(f"{NAME}*"))

    def dropped(self, names: Sequence[str]) -> None:
        """The folders of these examples are gone."""
        with self._writing() as db:
            db.executemany("UPDATE examples SET kept = 0 WHERE name = ?", [(name,) for name in names])


def _put_bugs(db: sqlite3.Connection, bugs: Sequence[Bug]) -> None:
    rows = [(bug.signature, json.dumps(dataclasses.asdict(bug), ensure_ascii=False)) for bug in bugs]
    db.executemany("INSERT OR REPLACE INTO bugs VALUES (?, ?)", rows)


def newest(store: Path) -> Path | None:
    """The folder of the newest soak in a store, or the store itself if it is one; None if there is none."""
    if (store / NAME).is_file():
        return store
    found = sorted(path.parent for path in store.glob(f"*{SUFFIX}*/{NAME}"))
    return found[-1] if found else None


def open_newest(store: Path) -> Journal:
    """The journal of the newest soak in a store. Raises StoreError if there is none."""
    folder = newest(store)
    if folder is None:
        raise StoreError(f"{store}: no soak in it, expected a store, or the folder of a soak, e.g. runs/<time>-soak")
    return Journal(folder / NAME)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what sqlite refuses into a StoreError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL or "disk I/O error" in str(error):
            raise StoreError(
                f"{path}: {error}: expected room on the device; try: df -h {path.parent}, then"
                f" ftmodel soak --resume {path.parent} --for ..."
            ) from None
        raise StoreError(f"{path}: {error}: expected a journal that can be written to, by one soak at a time") from None
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {error}: expected the journal of a soak") from None
