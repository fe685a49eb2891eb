"""The lines that are still to be answered, shared out among the gateways of a node.

A line is claimed by one owner, whose heartbeat keeps it. Each claim has a number, and only the
latest one's answer is taken: an owner that was thought dead and comes back changes nothing.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from orchestrator.batch.database import Database
from orchestrator.batch.schedule import Work

LEASE_S = 10.0
"""An owner that was not heard for so long is dead."""
PRIOR_LINE_S, PRIOR_LINES = 10.0, 4
"""What a line is thought to take at first, and as how many measured ones that counts."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Lines that can be decided alike."""

    workload: str
    model: str
    data_class: int
    """The lowest that they can have: by the caller's word, or found in them before."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is left of one kind."""

    pending: int
    """Lines that wait, some of them for the time of their next try."""
    open: int
    works: tuple[Work, ...]
    """By batch."""


@dataclass(frozen=True, slots=True)
class Line:
    """A claimed line."""

    batch_id: str
    number: int
    claim: int
    offset: int
    length: int
    custom_id: str
    kind: Kind
    tries: int
    """Answers so far that were worth another try."""
    losses: int
    """Those of them that a replica was given the line for, and none came."""
    endpoint: str
    """The API's path."""
    input_file_id: str
    key_id: str
    scope: str
    """What that key may be used for; JSON."""
    claimed: int
    place: str
    """The endpoint whose idle slot it may take; empty: it is urgent and goes anywhere."""

    @property
    def identity(self) -> tuple[str, int, int]:
        return self.batch_id, self.number, self.claim


@dataclass(frozen=True, slots=True)
class Outlook:
    """Everything that is going on."""

    batches: tuple[tuple[str, str, str], ...]
    """Id, key and workload of those whose end is not decided."""
    jobs: bool
    """Some are to be validated, or to have their results written."""
    waiting: dict[Kind, Waiting]
    own: frozenset[tuple[str, int, int]]
    """The lines that this owner still holds."""
    others_sent: dict[str, int]
    """Requests that other owners have open for their lines, by endpoint."""


@dataclass(frozen=True, slots=True)
class Used:
    """By one answer."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    busy_s: float = 0


NOTHING = Used()


@dataclass(frozen=True, slots=True)
class PutBack:
    """A line that has no answer yet."""

    after_s: float = 0
    data_class: int | None = None
    """That it was found to have, where it is another than was thought."""
    tried: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A line's result, for good."""

    result: bytes
    """Its line of the output or error file."""
    ok: bool
    used: Used = NOTHING


class Queue:
    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, owner: str, sent: Mapping[str, int], now_s: float) -> None:
        """Says that the owner lives and what it has open, and frees the lines of the dead."""
        with self._database.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO owners (id, seen_s, sent) VALUES (?, ?, ?)",
                (owner, now_s, orjson.dumps(dict(sent)).decode()),
            )
            db.execute("DELETE FROM owners WHERE seen_s <= ?", (now_s - LEASE_S,))
            db.execute(
                "UPDATE lines SET state = 'pending', owner = NULL, place = '' WHERE state = 'open' "
                "AND owner NOT IN (SELECT id FROM owners)"
            )

    def leave(self, owner: str) -> None:
        """Gives back everything at once, so that nobody waits for the lease to end."""
        with self._database.writing() as db:
            db.execute("DELETE FROM owners WHERE id = ?", (owner,))
            db.execute(
                "UPDATE lines SET state = 'pending', owner = NULL, place = '' WHERE state = 'open' "
                "AND owner = ?",
                (owner,),
            )

    def look(self, owner: str) -> Outlook:
        with self._database.reading() as db:
            going_on = db.execute(
                "SELECT id, key_id, workload, status FROM batches WHERE status IN "
                "('validating', 'in_progress', 'finalizing', 'cancelling')"
            ).fetchall()
            if not going_on:
                return Outlook((), False, {}, frozenset(), {})
            left = db.execute(
                "SELECT b.workload, k.model, k.data_class, k.pending, k.open, b.expires_at_s, "
                "(b.busy_s + ?) / (b.completed + b.failed + ?) AS line_s "
                "FROM batches b JOIN kinds k ON k.batch_id = b.id "
                "WHERE b.status = 'in_progress' AND k.pending + k.open > 0",
                (PRIOR_LINE_S * PRIOR_LINES, PRIOR_LINES),
            ).fetchall()
            own = db.execute(
                "SELECT batch_id, number, claim FROM lines WHERE state = 'open' AND owner = ?",
                (owner,),
            ).fetchall()
            others = db.execute("SELECT sent FROM owners WHERE id != ?", (owner,)).fetchall()
        waiting: dict[Kind, Waiting] = {}
        for row in left:
            kind = Kind(row["workload"], row["model"], row["data_class"])
            before = waiting.get(kind, Waiting(0, 0, ()))
            left = row["pending"] + row["open"]
            waiting[kind] = Waiting(
                before.pending + row["pending"],
                before.open + row["open"],
                (*before.works, Work(left, row["expires_at_s"], row["line_s"])),
            )
        sent: dict[str, int] = {}
        for row in others:
            for endpoint, count in orjson.loads(row["sent"]).items():
                sent[endpoint] = sent.get(endpoint, 0) + count
        return Outlook(
            tuple(
                (row["id"], row["key_id"], row["workload"])
                for row in going_on
                if row["status"] in ("validating", "in_progress")
            ),
            any(row["status"] != "in_progress" for row in going_on),
            waiting,
            frozenset((row["batch_id"], row["number"], row["claim"]) for row in own),
            sent,
        )

    def claim(
        self,
        owner: str,
        kind: Kind,
        place: str,
        now_s: float,
        count: int,
        of_workload: int,
        at_place: int | None = None,
    ) -> list[Line]:
        """Up to `count` lines of a kind, those of the first deadline first: no more than leave
        `of_workload` of its lines open, and `at_place` of any lines there, with all owners'."""
        with self._database.writing() as db:
            (of_it,) = db.execute(
                "SELECT count(*) FROM lines l JOIN batches b ON b.id = l.batch_id "
                "WHERE l.state = 'open' AND b.workload = ?",
                (kind.workload,),
            ).fetchone()
            count = min(count, of_workload - of_it)
            if at_place is not None:
                (there,) = db.execute(
                    "SELECT count(*) FROM lines WHERE state = 'open' AND place = ?", (place,)
                ).fetchone()
                count = min(count, at_place - there)
            if count <= 0:
                return []
            rows = _first(db, kind, now_s, count)
            db.executemany(
                "UPDATE lines SET state = 'open', owner = ?, place = ?, claim = ? "
                "WHERE batch_id = ? AND number = ?",
                [(owner, place, r["claim"], r["batch_id"], r["number"]) for r in rows],
            )
        return [Line(**dict(row), kind=kind, place=place) for row in rows]

    def record(self, outcomes: Iterable[tuple[Line, Answered | PutBack]], now_s: float) -> int:
        """What became of claimed lines, in one transaction. Returns how many answers it took: those
        of claims that had ended by then are not the line's."""
        with self._database.writing() as db:
            answers = 0
            for line, outcome in outcomes:
                if isinstance(outcome, PutBack):
                    _put_back(db, line, outcome, now_s)
                else:
                    answers += _answer(db, line, outcome, now_s)
        return answers

    def let_go(self, lost: Iterable[tuple[str, int, int]], not_before_s: float) -> None:
        """Puts back claimed lines, by their identities, that their owner has lost track of."""
        with self._database.writing() as db:
            db.executemany(
                "UPDATE lines SET state = 'pending', owner = NULL, place = '', not_before_s = ? "
                "WHERE batch_id = ? AND number = ? AND claim = ? AND state = 'open'",
                [(not_before_s, *identity) for identity in lost],
            )


def _answer(db: sqlite3.Connection, line: Line, answer: Answered, now_s: float) -> bool:
    counter = "completed" if answer.ok else "failed"
    taken = db.execute(
        "UPDATE lines SET state = ?, result = ?, owner = NULL WHERE batch_id = ? AND number = ? "
        "AND claim = ? AND state = 'open'",
        (counter, answer.result, *line.identity),
    ).rowcount
    if not taken:
        return False
    used = answer.used
    db.execute(
        f"UPDATE batches SET {counter} = {counter} + 1, busy_s = busy_s + ?, "  # noqa: S608
        "prompt_tokens = prompt_tokens + ?, cached_tokens = cached_tokens + ?, "
        "completion_tokens = completion_tokens + ? WHERE id = ?",
        (
            used.busy_s,
            used.prompt_tokens,
            used.cached_tokens,
            used.completion_tokens,
            line.batch_id,
        ),
    )
    db.execute(
        "UPDATE batches SET status = 'finalizing', ending = 'completed', finalizing_at_s = ? "
        "WHERE id = ? AND status = 'in_progress' AND completed + failed = total",
        (now_s, line.batch_id),
    )
    return True


def _put_back(db: sqlite3.Connection, line: Line, back: PutBack, now_s: float) -> None:
    data_class = line.kind.data_class if back.data_class is None else back.data_class
    db.execute(
        "UPDATE lines SET state = 'pending', owner = NULL, place = '', not_before_s = ?, "
        "data_class = ?, tries = tries + ?, losses = losses + ? "
        "WHERE batch_id = ? AND number = ? AND claim = ? AND state = 'open'",
        (now_s + back.after_s, data_class, back.tried, back.lost, *line.identity),
    )


def _first(db: sqlite3.Connection, kind: Kind, now_s: float, count: int) -> list[sqlite3.Row]:
    batches = db.execute(
        "SELECT id FROM batches WHERE status = 'in_progress' AND workload = ? "
        "ORDER BY expires_at_s, seq",
        (kind.workload,),
    ).fetchall()
    rows: list[sqlite3.Row] = []
    for batch in batches:
        rows += db.execute(
            "SELECT l.batch_id, l.number, l.claim + 1 AS claim, l.offset, l.length, l.custom_id, "
            "l.tries, l.losses, b.endpoint, b.input_file_id, b.key_id, b.scope, b.claimed "
            "FROM lines l JOIN batches b ON b.id = l.batch_id "
            "WHERE l.batch_id = ? AND l.model = ? AND l.data_class = ? AND l.state = 'pending' "
            "AND l.not_before_s <= ? ORDER BY l.number LIMIT ?",
            (batch["id"], kind.model, kind.data_class, now_s, count - len(rows)),
        ).fetchall()
        if len(rows) == count:
            break
    return rows
