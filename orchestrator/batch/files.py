"""Uploaded files and results: the content on disk, what is known of it in the database."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

from orchestrator.batch.database import Database
from orchestrator.durable import sync_directory

NEEDED = (
    "EXISTS (SELECT 1 FROM batches WHERE input_file_id = files.id AND status IN "
    "('validating', 'in_progress', 'finalizing', 'cancelling'))"
)


class NotFound(Exception):
    """The workload has nothing of that id."""


class InUse(Exception):
    """A batch that is not over needs the file."""


class NoSpace(Exception):
    """The workload keeps as much as it may."""


@dataclass(frozen=True, slots=True)
class File:
    """Times are seconds since the epoch."""

    id: str
    workload: str
    purpose: str
    """`batch` or `batch_output`."""
    filename: str
    """The client's own word. It names nothing on disk."""
    bytes: int
    created_at_s: float
    expires_at_s: float
    claimed: int
    """The data class that the uploader gave it."""

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls(**{name: row[name] for name in _NAMES})

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.created_at_s),
            "expires_at": int(self.expires_at_s),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


_NAMES = [f.name for f in fields(File)]
INSERT = f"INSERT INTO files ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608


def values(file: File) -> list[Any]:
    """For `INSERT`."""
    return [getattr(file, name) for name in _NAMES]


def new_id() -> str:
    return f"file-{secrets.token_hex(16)}"


class Files:
    """A file of one workload does not exist for another, nor after its time."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._kept = directory / "files"
        self._unfinished = directory / "unfinished"

    @contextmanager
    def writing(self) -> Iterator["Draft"]:
        """A new file on disk, which is gone after the context unless it was kept."""
        for directory in (self._kept, self._unfinished):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._unfinished / secrets.token_hex(16)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield Draft(stream, path, self._kept)
        finally:
            path.unlink(missing_ok=True)

    def add(self, file: File, most_bytes: int) -> None:
        """Of content that is kept already. `most_bytes`: what the workload may have uploaded.
        Raises NoSpace."""
        try:
            with self._database.writing() as db:
                (kept,) = db.execute(
                    "SELECT coalesce(sum(bytes), 0) FROM files "
                    "WHERE workload = ? AND purpose = 'batch'",
                    (file.workload,),
                ).fetchone()
                if kept + file.bytes > most_bytes:
                    raise NoSpace
                db.execute(INSERT, values(file))
        except BaseException:
            self._remove(file.id)
            raise

    def get(self, workload: str, file_id: str, now_s: float) -> File:
        """Raises NotFound."""
        with self._database.reading() as db:
            row = db.execute(
                "SELECT * FROM files WHERE id = ? AND workload = ? "  # noqa: S608
                f"AND (expires_at_s > ? OR {NEEDED})",
                (file_id, workload, now_s),
            ).fetchone()
        if row is None:
            raise NotFound
        return File.of(row)

    def list(
        self,
        workload: str,
        now_s: float,
        limit: int,
        after: str | None = None,
        purpose: str | None = None,
        ascending: bool = False,
    ) -> list[File]:
        """Newest first unless `ascending`, from behind the file `after`. Raises NotFound for that
        one."""
        order, beyond = ("ASC", ">") if ascending else ("DESC", "<")
        where, given = "workload = ? AND expires_at_s > ?", [workload, now_s]
        if purpose is not None:
            where, given = f"{where} AND purpose = ?", [*given, purpose]
        with self._database.reading() as db:
            if after is not None:
                cursor = db.execute(
                    "SELECT seq FROM files WHERE id = ? AND workload = ?", (after, workload)
                ).fetchone()
                if cursor is None:
                    raise NotFound
                where, given = f"{where} AND seq {beyond} ?", [*given, cursor["seq"]]
            rows = db.execute(
                f"SELECT * FROM files WHERE {where} ORDER BY seq {order} LIMIT ?",  # noqa: S608
                (*given, limit),
            ).fetchall()
        return [File.of(row) for row in rows]

    def delete(self, workload: str, file_id: str) -> None:
        """Raises NotFound, InUse."""
        with self._database.writing() as db:
            row = db.execute(
                f"SELECT {NEEDED} AS needed FROM files WHERE id = ? AND workload = ?",  # noqa: S608
                (file_id, workload),
            ).fetchone()
            if row is None:
                raise NotFound
            if row["needed"]:
                raise InUse
            db.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self._remove(file_id)

    def open(self, file_id: str) -> BinaryIO:
        """The content. Raises FileNotFoundError."""
        return (self._kept / file_id).open("rb")

    def read(self, file_id: str, offset: int, length: int) -> bytes:
        """Raises OSError, EOFError."""
        with self.open(file_id) as content:
            content.seek(offset)
            part = content.read(length)
        if len(part) != length:
            raise EOFError(f"{file_id} ends early")
        return part

    def expire(self, now_s: float) -> None:
        """Deletes what is past its time and not needed."""
        with self._database.writing() as db:
            gone = db.execute(
                f"DELETE FROM files WHERE expires_at_s <= ? AND NOT {NEEDED} RETURNING id",  # noqa: S608
                (now_s,),
            ).fetchall()
        for row in gone:
            self._remove(row["id"])

    def sweep(self, now_s: float, older_than_s: float) -> None:
        """Deletes what a crash has left: content that no row speaks of."""
        with suppress(FileNotFoundError):
            for path in self._unfinished.iterdir():
                _remove_old(path, now_s - older_than_s)
        with suppress(FileNotFoundError):
            for path in self._kept.iterdir():
                with self._database.reading() as db:
                    known = db.execute("SELECT 1 FROM files WHERE id = ?", (path.name,)).fetchone()
                if known is None:
                    _remove_old(path, now_s - older_than_s)

    def _remove(self, file_id: str) -> None:
        (self._kept / file_id).unlink(missing_ok=True)


class Draft:
    """Content on its way to disk."""

    def __init__(self, stream: BinaryIO, path: Path, kept: Path) -> None:
        self._stream = stream
        self._path = path
        self._kept = kept
        self.bytes = 0

    def write(self, part: bytes | memoryview) -> None:
        self._stream.write(part)
        self.bytes += len(part)

    def keep(self, file_id: str) -> None:
        """From now on it is on disk under this id, whatever happens."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        os.replace(self._path, self._kept / file_id)
        sync_directory(self._kept)


def _remove_old(path: Path, before_s: float) -> None:
    with suppress(FileNotFoundError):
        if path.stat().st_mtime < before_s:
            path.unlink()
