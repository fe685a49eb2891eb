"""Secrets of the local stack, made at first use, readable by their owner alone."""

import os
import secrets
from pathlib import Path


def secret(state: Path, name: str) -> str:
    """The secret of this name."""
    file = state / "secrets" / name
    if not file.exists():
        write(file, secrets.token_hex(16))
    return file.read_text().strip()


def write(file: Path, value: str) -> None:
    """Writes a file with mode 0600."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(value + "\n")
