"""The versions of the rules: every one that was applied, and the one in force.

Below the state directory: `policy/versions/VERSION/` with the files as they were and `meta.json`,
`policy/current`, a link to one of them, and `policy/history.jsonl`. Whatever is written appears
whole or not at all, so an `apply` that is killed leaves the old version in force.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.config.keys import FILE as KEYS_FILE
from orchestrator.config.load import ConfigurationError, Loaded, Problem, load, yaml_files
from orchestrator.durable import sync_directory

META = "meta.json"

Check = Callable[[Path, Loaded], list[Problem]]
"""What else must hold of a configuration, whose files stand in the folder."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A version that is in force, or was."""

    version: str
    source: Path
    """The directory it came from: keys stand there, and relative paths start there."""
    applied_at: datetime
    already: bool = False
    """It was in force before, and nothing was done."""


class PolicyStore:
    def __init__(self, state_directory: Path) -> None:
        self._folder = state_directory.absolute() / "policy"
        self._versions = self._folder / "versions"
        self._link = self._folder / "current"
        self._history = self._folder / "history.jsonl"

    def apply(self, directory: Path, check: Check) -> Applied:
        """Puts the configuration of a directory in force. Raises ConfigurationError, and then the
        version in force stays."""
        source = directory.absolute()
        loaded = load(source)
        _refuse(check(source, loaded))
        with self._locked():
            before = self.current()
            if before and (before.version, before.source) == (loaded.version, source):
                try:
                    self.load(before.version)
                    return Applied(before.version, source, before.applied_at, already=True)
                except ConfigurationError:
                    pass  # its copy was altered; it is made anew
            self._copy(loaded.version, source)
            return self._put_in_force(loaded.version)

    def restore(self, version: str, check: Check) -> Applied:
        """Puts a version in force that was applied before. Raises ConfigurationError."""
        _refuse(check(self.files(version), self.load(version)))
        with self._locked():
            before = self.current()
            if before and before.version == version:
                return Applied(version, before.source, before.applied_at, already=True)
            return self._put_in_force(version)

    def current(self) -> Applied | None:
        """The version in force. Raises ConfigurationError when its files are gone."""
        if not self._link.is_symlink():
            return None
        return self._read_meta(Path(os.readlink(self._link)).name)

    def load(self, version: str) -> Loaded:
        """An applied version, as it was. Raises ConfigurationError for one that is not known or
        whose files were altered since."""
        folder = self.files(version)
        loaded = load(folder, base=self._read_meta(version).source)
        if loaded.version != version:
            raise ConfigurationError(
                [Problem(folder, 1, "files were altered since; apply their directory again")]
            )
        return loaded

    def files(self, version: str) -> Path:
        """The folder with the copied files of a version."""
        return self._versions / version

    def history(self) -> list[Applied]:
        """What was put in force, the oldest first."""
        rows = self._written_history()
        current = self.current()
        if current and current not in rows[-1:]:
            rows.append(current)
        return rows

    def previous(self) -> Applied | None:
        """What was in force before the current version."""
        rows = self.history()
        return next((r for r in reversed(rows) if r.version != rows[-1].version), None)

    def _copy(self, version: str, source: Path) -> None:
        """Into a folder of its own, whose name it gets when it is complete and right."""
        draft = self._versions / ".draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for file in yaml_files(source):
            if file.name != KEYS_FILE:
                _write(draft / file.name, file.read_bytes())
        if load(draft, base=source).version != version:
            raise ConfigurationError(
                [Problem(source, 1, "changed while it was read; apply it again")]
            )
        self._write_meta(draft, Applied(version, source, datetime.now(UTC)))
        sync_directory(draft)
        folder = self.files(version)
        if folder.exists():
            self._renew(folder, draft)
        else:
            draft.rename(folder)
        sync_directory(self._versions)

    def _renew(self, folder: Path, draft: Path) -> None:
        """File by file: each of a sound copy is replaced by its equal, so the folder may be in
        force all the while."""
        for file in yaml_files(folder):
            if not (draft / file.name).exists():
                file.unlink()
        for file in draft.iterdir():
            file.replace(folder / file.name)
        draft.rmdir()
        sync_directory(folder)

    def _put_in_force(self, version: str) -> Applied:
        for row in self.history()[-1:]:
            self._remember(row)
        meta = self._read_meta(version)
        applied = Applied(version, meta.source, datetime.now(UTC))
        self._write_meta(self.files(version), applied)
        draft = self._folder / ".current"
        draft.unlink(missing_ok=True)
        draft.symlink_to(Path("versions") / version)
        draft.replace(self._link)
        sync_directory(self._folder)
        self._remember(applied)
        return applied

    def _remember(self, applied: Applied) -> None:
        """Appends to the history what is not its last row: also what a killed apply left out."""
        if applied in self._written_history()[-1:]:
            return
        content = self._history.read_bytes() if self._history.exists() else b""
        cut = content and not content.endswith(b"\n")
        with self._history.open("ab") as file:
            file.write((b"\n" if cut else b"") + json.dumps(_as_json(applied)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _written_history(self) -> list[Applied]:
        rows = []
        for line in self._history.read_bytes().splitlines() if self._history.exists() else ():
            try:
                rows.append(_from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                continue  # cut: of an apply that was killed
        return rows

    def _write_meta(self, folder: Path, applied: Applied) -> None:
        _write(folder / META, json.dumps(_as_json(applied), indent=2).encode() + b"\n")

    def _read_meta(self, version: str) -> Applied:
        file = self.files(version) / META
        try:
            return _from_json(json.loads(file.read_bytes()))
        except FileNotFoundError:
            known = ", ".join(sorted(f.parent.name for f in self._versions.glob(f"[!.]*/{META}")))
            message = f"no version '{version}' was applied; there are: {known or 'none'}"
            raise ConfigurationError([Problem(file, 1, message)]) from None
        except (ValueError, KeyError, TypeError):
            message = "was altered; apply the configuration's directory again"
            raise ConfigurationError([Problem(file, 1, message)]) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, also over processes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise ConfigurationError(problems)


def _as_json(applied: Applied) -> dict[str, str]:
    return {
        "version": applied.version,
        "source": str(applied.source),
        "applied_at": applied.applied_at.isoformat(),
    }


def _from_json(row: dict[str, str]) -> Applied:
    return Applied(row["version"], Path(row["source"]), datetime.fromisoformat(row["applied_at"]))


def _write(file: Path, content: bytes) -> None:
    """The whole file or none of it, on the disk when this returns."""
    draft = file.with_name(f".{file.name}.draft")
    with draft.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)
