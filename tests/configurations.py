"""Copies of the example company with something changed, and what is then wrong with them."""

import shutil
from pathlib import Path

import pytest

from orchestrator.config.load import ConfigurationError, load

CLUSTERS = Path(__file__).parents[1] / "clusters"
EXAMPLE = CLUSTERS / "example"


def company(tmp_path: Path, file: str = "more.yaml", text: str = "") -> Path:
    """The example company with one file more, or another one in its place."""
    directory = shutil.copytree(EXAMPLE, tmp_path / "company")
    (directory / file).write_text(text)
    return directory


def problems(directory: Path) -> list[str]:
    """As `file:line: message`."""
    with pytest.raises(ConfigurationError) as caught:
        load(directory)
    return [f"{p.path.name}:{p.line}: {p.message}" for p in caught.value.problems]


def line(text: str, part: str) -> int:
    """Of the last occurrence of a part of the text."""
    return text[: text.rindex(part)].count("\n") + 1
