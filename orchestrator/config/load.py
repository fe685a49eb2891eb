"""Reading a configuration directory: YAML files in, a checked `Configuration` out.

Every problem is reported as `path:line: message`, all of them at once.
"""

import difflib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config.inherit import Inheritance, Place, resolve
from orchestrator.config.keys import FILE as KEYS_FILE
from orchestrator.config.reading import Problem, Reading, short, state_directory
from orchestrator.config.references import check
from orchestrator.config.spec import Configuration

__all__ = ["ConfigurationError", "Loaded", "Problem", "load", "state_directory"]

PROBES = "probes"
"""The stem of the file that tests the rules and is not one of them."""

S = TypeVar("S", bound=BaseModel)

MAX_PROBLEMS = 100
"""Of a broken file nobody reads more."""
MENDS = {
    ("usd_per_day", "greater_than"): "; a workload that may spend nothing has no `burst`",
    ("markers", "string_too_short"): "; a shorter one would be found in too many texts",
    ("algorithms", "literal_error"): "; with others whoever checks a token could make one",
}


class ConfigurationError(Exception):
    """Everything that is wrong with a configuration directory."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    @property
    def places(self) -> str:
        """`path:line` of each, without what it quotes: for logs."""
        return ", ".join(f"{short(problem.path)}:{problem.line}" for problem in self.problems)


@dataclass(frozen=True)
class Loaded:
    """`version` is the first 12 hex digits of a SHA-256 over the YAML files, keys and probes aside:
    who may call and what is tested are not part of the rules, and change without them."""

    configuration: Configuration
    version: str
    directory: Path
    """Where people edit it and where its keys stand, also of a copy that is read elsewhere."""
    inherited: dict[str, dict[str, str]] = field(default_factory=dict)
    """By workload, the profile that each inherited field comes from."""


def load(directory: Path, base: Path | None = None) -> Loaded:
    """`base` is the folder that relative paths start at, when the files are a copy of those that
    stand there. Raises ConfigurationError."""
    directory = directory.absolute()
    files = [f for f in yaml_files(directory) if f.stem != PROBES]
    if not files:
        raise ConfigurationError(
            [Problem(directory, 1, "no YAML files here; give a configuration directory")]
        )
    reading = Reading(base)
    digest = hashlib.sha256()
    for file in files:
        content = reading.read(file)
        if file.name != KEYS_FILE:
            digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    if reading.problems:
        raise ConfigurationError(reading.problems)
    inheritance = resolve(reading.document)
    if inheritance.broken:
        raise _error(reading, inheritance.broken)
    configuration = parse(reading, Configuration, inheritance)
    findings = check(configuration)
    if findings:
        raise _error(reading, ((inheritance.origin(p), message) for p, message in findings))
    return Loaded(configuration, digest.hexdigest()[:12], base or directory, inheritance.taken)


def yaml_files(directory: Path) -> list[Path]:
    return sorted(
        f
        for f in (directory.glob("*.y*ml") if directory.is_dir() else [])
        if f.suffix in (".yaml", ".yml")
    )


def parse(reading: Reading, spec: type[S], inheritance: Inheritance | None = None) -> S:
    """Raises ConfigurationError."""
    try:
        return spec.model_validate(reading.document)
    except ValidationError as error:
        raise _error(reading, _sentences(error, inheritance or Inheritance(), spec)) from None


def _error(reading: Reading, findings: Iterable[tuple[Place, str]]) -> ConfigurationError:
    """Once each: what is wrong in a profile is wrong in all its heirs."""
    problems = list(dict.fromkeys(reading.problem(place, message) for place, message in findings))
    rest = problems[MAX_PROBLEMS:]
    if rest:
        more = f"and {len(rest)} more problems from here on; mend those above first"
        problems[MAX_PROBLEMS:] = [Problem(rest[0].path, rest[0].line, more)]
    return ConfigurationError(problems)


def _sentences(
    error: ValidationError, inheritance: Inheritance, spec: type[BaseModel]
) -> Iterator[tuple[Place, str]]:
    seen: set[Place] = set()
    for detail in error.errors(include_url=False, include_input=False):
        place = inheritance.origin(detail["loc"])
        if len(seen) < MAX_PROBLEMS:
            yield place, _sentence(place, detail, spec)
        elif place not in seen:
            yield place, detail["msg"]
        seen.add(place)


def _sentence(place: Place, error: ErrorDetails, root: type[BaseModel]) -> str:
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
    if error["type"] == "extra_forbidden":
        known = _fields_at(place[:-1], root)
        near = difflib.get_close_matches(str(place[-1]), known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(known)}"
        return f"{where}: unknown field; {hint}"
    if error["type"] == "missing":
        return f"{where}: is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    mend = "; put it in quotes" if error["type"] == "string_type" else ""
    field_name = next((part for part in reversed(place) if isinstance(part, str)), "")
    mend = MENDS.get((field_name, error["type"]), mend)
    return f"{where}: {message[0].lower()}{message[1:]}{mend}"


def _fields_at(place: Place, spec: type[BaseModel]) -> list[str]:
    """The names of the fields of the spec at this place of the document."""
    for part in place:
        if isinstance(part, int) or part not in spec.model_fields:
            continue
        annotation: Any = spec.model_fields[part].annotation
        inside = [annotation, *get_args(annotation)]
        spec = next((a for a in inside if isinstance(a, type) and issubclass(a, BaseModel)), spec)
    return list(spec.model_fields)
