"""Batches from their making to their results."""

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import orjson

from orchestrator.batch.database import Database
from orchestrator.batch.files import INSERT, NEEDED, File, NotFound, values
from orchestrator.batch.lines import InputLine, Problem, unanswered
from orchestrator.batch.queue import LEASE_S

MAX_GOING_ON = 200
"""Batches of one workload that are not over."""
FETCH = 200
"""Results read at once."""
WHY_DROPPED = {
    "expired": ("batch_expired", "The completion window ended before this request was answered."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was answered."),
}
NO_OWNER = "(owner IS NULL OR owner NOT IN (SELECT id FROM owners WHERE seen_s > ?))"


class TooMany(Exception):
    """The workload has as many batches going on as it may."""


class WrongFile(Exception):
    """There is no such input file, or it is none of purpose `batch`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Times are seconds since the epoch."""

    id: str
    workload: str
    key_id: str
    scope: str
    """What that key, or the token in its place, may be used for; JSON."""
    claimed: int
    """The data class that the caller gave it."""
    endpoint: str
    input_file_id: str
    completion_window: str
    output_expires_after_s: float | None
    metadata: str | None
    """JSON."""
    created_at_s: float
    expires_at_s: float
    status: str = "validating"
    ending: str | None = None
    """The status that it will have when its results are written."""
    errors: str | None = None
    """JSON."""
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at_s: float | None = None
    finalizing_at_s: float | None = None
    cancelling_at_s: float | None = None
    ended_at_s: float | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls(**{name: row[name] for name in _NAMES})

    def as_json(self) -> dict[str, Any]:
        ended: dict[str, int | None] = {
            f"{status}_at": None for status in ("completed", "failed", "expired", "cancelled")
        }
        if self.ended_at_s is not None:
            ended[f"{self.status}_at"] = _whole(self.ended_at_s)
        errors = None if self.errors is None else orjson.loads(self.errors)
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": None if errors is None else {"object": "list", "data": errors},
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": _whole(self.created_at_s),
            "in_progress_at": _whole(self.in_progress_at_s),
            "expires_at": _whole(self.expires_at_s),
            "finalizing_at": _whole(self.finalizing_at_s),
            "cancelling_at": _whole(self.cancelling_at_s),
            **ended,
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "usage": {
                "input_tokens": self.prompt_tokens,
                "input_tokens_details": {"cached_tokens": self.cached_tokens},
                "output_tokens": self.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.prompt_tokens + self.completion_tokens,
            },
            "metadata": None if self.metadata is None else orjson.loads(self.metadata),
        }

    def why_dropped(self) -> tuple[str, str]:
        """What a line is told that got no answer: a code and a sentence."""
        if self.ending in WHY_DROPPED:
            return WHY_DROPPED[self.ending]
        first = orjson.loads(self.errors or "[{}]")[0]
        return first.get("code", "batch_failed"), first.get("message", "The batch has failed.")


_NAMES = [f.name for f in fields(Batch)]
_INSERT = f"INSERT INTO batches ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608


def new_id() -> str:
    return f"batch_{secrets.token_hex(16)}"


class Batches:
    """A batch of one workload does not exist for another."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, batch: Batch) -> Batch:
        """With the class that its input file was given, where that is higher. Raises WrongFile,
        TooMany."""
        with self._database.writing() as db:
            file = db.execute(
                f"SELECT * FROM files WHERE id = ? AND workload = ? AND purpose = 'batch' "  # noqa: S608
                f"AND (expires_at_s > ? OR {NEEDED})",
                (batch.input_file_id, batch.workload, batch.created_at_s),
            ).fetchone()
            if file is None:
                raise WrongFile
            (going_on,) = db.execute(
                "SELECT count(*) FROM batches WHERE workload = ? AND status IN "
                "('validating', 'in_progress', 'finalizing', 'cancelling')",
                (batch.workload,),
            ).fetchone()
            if going_on >= MAX_GOING_ON:
                raise TooMany
            db.execute(_INSERT, [getattr(batch, name) for name in _NAMES])
            db.execute(
                "UPDATE batches SET claimed = max(claimed, ?) WHERE id = ?",
                (file["claimed"], batch.id),
            )
        return self.get(batch.workload, batch.id)

    def get(self, workload: str, batch_id: str) -> Batch:
        """Raises NotFound."""
        with self._database.reading() as db:
            return _get(db, workload, batch_id)

    def list(self, workload: str, limit: int, after: str | None = None) -> list[Batch]:
        """Newest first, from behind the batch `after`. Raises NotFound for that one."""
        with self._database.reading() as db:
            before = 2**62
            if after is not None:
                row = db.execute(
                    "SELECT seq FROM batches WHERE id = ? AND workload = ?", (after, workload)
                ).fetchone()
                if row is None:
                    raise NotFound
                before = row["seq"]
            rows = db.execute(
                "SELECT * FROM batches WHERE workload = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
                (workload, before, limit),
            ).fetchall()
        return [Batch.of(row) for row in rows]

    def cancel(self, workload: str, batch_id: str, now_s: float) -> Batch:
        """Raises NotFound. A batch whose end is decided already stays as it is."""
        with self._database.writing() as db:
            _get(db, workload, batch_id)
            _end(db, batch_id, "cancelled", now_s, None)
            return _get(db, workload, batch_id)

    def fail(self, batch_id: str, now_s: float, problems: Sequence[Problem]) -> None:
        errors = orjson.dumps([problem.as_json() for problem in problems]).decode()
        with self._database.writing() as db:
            _end(db, batch_id, "failed", now_s, errors)

    def expire(self, now_s: float) -> None:
        """Ends those whose completion window is over."""
        with self._database.writing() as db:
            late = db.execute(
                "SELECT id FROM batches WHERE status IN ('validating', 'in_progress') AND "
                "expires_at_s <= ?",
                (now_s,),
            ).fetchall()
            for row in late:
                _end(db, row["id"], "expired", now_s, None)

    def take_job(self, owner: str, now_s: float) -> Batch | None:
        """A batch to be validated, or whose results are to be written, for this owner alone."""
        with self._database.writing() as db:
            row = db.execute(
                "UPDATE batches SET owner = ? WHERE id = (SELECT id FROM batches WHERE status IN "  # noqa: S608
                f"('validating', 'finalizing', 'cancelling') AND {NO_OWNER} ORDER BY seq LIMIT 1) "
                "RETURNING *",
                (owner, now_s - LEASE_S),
            ).fetchone()
        return None if row is None else Batch.of(row)

    def drop_job(self, owner: str) -> None:
        """What this owner has not finished is for the next."""
        with self._database.writing() as db:
            db.execute("UPDATE batches SET owner = NULL WHERE owner = ?", (owner,))

    def validated(
        self, batch_id: str, owner: str, now_s: float, lines: Iterable[InputLine]
    ) -> None:
        """Its lines may run from now on. Nothing happens when the job is another's by now."""
        with self._database.writing() as db:
            begun = db.execute(
                "UPDATE batches SET status = 'in_progress', in_progress_at_s = ?, owner = NULL "
                "WHERE id = ? AND status = 'validating' AND owner = ? RETURNING claimed",
                (now_s, batch_id, owner),
            ).fetchone()
            if begun is None:
                return
            (claimed,) = begun
            total = db.executemany(
                "INSERT INTO lines "
                "(batch_id, number, offset, length, custom_id, model, data_class) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (batch_id, x.number, x.offset, x.length, x.custom_id, x.model, claimed)
                    for x in lines
                ),
            ).rowcount
            db.execute("UPDATE batches SET total = ? WHERE id = ?", (total, batch_id))

    def results(self, batch: Batch) -> Iterator[tuple[bool, bytes]]:
        """Every line of a batch whose end is decided, once: whether it was answered well, and its
        line of the output or error file."""
        code, message = batch.why_dropped()
        number = 0
        while True:
            with self._database.reading() as db:
                rows = db.execute(
                    "SELECT * FROM lines WHERE batch_id = ? AND number > ? ORDER BY number LIMIT ?",
                    (batch.id, number, FETCH),
                ).fetchall()
            if not rows:
                return
            for row in rows:
                number = row["number"]
                if row["result"] is not None:
                    yield row["state"] == "completed", row["result"]
                else:
                    request_id = request_id_of(batch.id, number)
                    yield False, unanswered(request_id, row["custom_id"], code, message)

    def finished(
        self,
        batch_id: str,
        owner: str,
        now_s: float,
        output: File | None,
        error: File | None,
    ) -> None:
        """Its results are on disk. Nothing happens when the job is another's by now."""
        with self._database.writing() as db:
            done = db.execute(
                "UPDATE batches SET status = ending, ended_at_s = ?, owner = NULL, "
                "output_file_id = ?, error_file_id = ? WHERE id = ? AND owner = ? AND "
                "status IN ('finalizing', 'cancelling')",
                (now_s, output and output.id, error and error.id, batch_id, owner),
            ).rowcount
            if done:
                db.execute("DELETE FROM kinds WHERE batch_id = ?", (batch_id,))
                db.executemany(INSERT, [values(file) for file in (output, error) if file])

    def forget(self, now_s: float, retention_s: float) -> None:
        """Deletes the lines of batches that are over, and batches that have long been."""
        over = "SELECT id FROM batches WHERE ended_at_s IS NOT NULL"
        more = True
        while more:
            with self._database.writing() as db:
                more = bool(
                    db.execute(
                        f"DELETE FROM lines WHERE (batch_id, number) IN (SELECT batch_id, number "  # noqa: S608
                        f"FROM lines WHERE batch_id IN ({over}) LIMIT ?)",
                        (FETCH,),
                    ).rowcount
                )
        with self._database.writing() as db:
            db.execute("DELETE FROM batches WHERE ended_at_s < ?", (now_s - retention_s,))
        with self._database.reading() as db:
            # The log beside the database holds content too.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def request_id_of(batch_id: str, number: int) -> str:
    """Under which a line is decided, relayed and accounted."""
    return f"{batch_id}-{number}"


def _get(db: sqlite3.Connection, workload: str, batch_id: str) -> Batch:
    row = db.execute(
        "SELECT * FROM batches WHERE id = ? AND workload = ?", (batch_id, workload)
    ).fetchone()
    if row is None:
        raise NotFound
    return Batch.of(row)


def _end(
    db: sqlite3.Connection, batch_id: str, ending: str, now_s: float, errors: str | None
) -> None:
    """Decides the end of a batch that is going on: no line of it is answered any more. One that has
    no lines yet is over at once."""
    db.execute(
        "UPDATE batches SET status = ?, ending = ?, ended_at_s = ?, errors = ?, owner = NULL "
        "WHERE id = ? AND status = 'validating'",
        (ending, ending, now_s, errors, batch_id),
    )
    status = "cancelling" if ending == "cancelled" else "finalizing"
    ended = db.execute(
        f"UPDATE batches SET status = ?, ending = ?, {status}_at_s = ?, errors = ?, owner = NULL "  # noqa: S608
        "WHERE id = ? AND status = 'in_progress'",
        (status, ending, now_s, errors, batch_id),
    ).rowcount
    if ended:
        db.execute(
            "UPDATE lines SET state = 'dropped', owner = NULL WHERE batch_id = ? AND state IN "
            "('pending', 'open')",
            (batch_id,),
        )


def _whole(time_s: float | None) -> int | None:
    return None if time_s is None else int(time_s)
