"""Reading a configuration directory: YAML files in, a checked `Configuration` out.

Every problem is reported as `path:line: message`, all of them at once.
"""

import difflib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config.inherit import BrokenInheritance, Place, resolve
from orchestrator.config.keys import FILE as KEYS_FILE
from orchestrator.config.references import check
from orchestrator.config.spec import Configuration

MAX_FILE_BYTES = 2 * 1024 * 1024
MAX_DEPTH = 20


@dataclass(frozen=True)
class Problem:
    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{_short(self.path)}:{self.line}: {self.message}"


class ConfigurationError(Exception):
    """Everything that is wrong with a configuration directory."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True)
class Loaded:
    """`version` is the first 12 hex digits of a SHA-256 over the YAML files, keys aside: who may
    call is not part of the rules, and changes without them."""

    configuration: Configuration
    version: str
    directory: Path
    inherited: dict[str, dict[str, str]] = field(default_factory=dict)
    """By workload, the profile that each inherited field comes from."""


def state_directory() -> Path:
    """Where this machine keeps what is not configuration: secrets, ledger, models, logs."""
    return Path(os.environ.get("ORCHESTRATOR_STATE", ".orchestrator")).absolute()


def load(directory: Path, base: Path | None = None) -> Loaded:
    """`base` is the folder that relative paths start at, when the files are a copy of those that
    stand there. Raises ConfigurationError."""
    directory = directory.absolute()
    files = sorted(
        f
        for f in (directory.glob("*.y*ml") if directory.is_dir() else [])
        if f.suffix in (".yaml", ".yml") and f.stem != "probes"
    )
    if not files:
        raise ConfigurationError(
            [Problem(directory, 1, "no YAML files here; give a configuration directory")]
        )
    reading = _Reading(base)
    digest = hashlib.sha256()
    for file in files:
        content = reading.read(file)
        if file.name != KEYS_FILE:
            digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    if reading.problems:
        raise ConfigurationError(reading.problems)
    try:
        inherited = resolve(reading.document, reading.origins)
        configuration = Configuration.model_validate(reading.document)
    except BrokenInheritance as error:
        raise ConfigurationError([reading.problem(error.place, str(error))]) from None
    except ValidationError as error:
        raise ConfigurationError(
            [reading.problem(e["loc"], _sentence(e)) for e in error.errors()]
        ) from None
    problems = [reading.problem(place, message) for place, message in check(configuration)]
    if problems:
        raise ConfigurationError(problems)
    return Loaded(configuration, digest.hexdigest()[:12], directory, inherited)


class _Reading:
    """One document gathered from many files, with the origin of every node."""

    def __init__(self, base: Path | None) -> None:
        self.document: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.origins: dict[Place, tuple[Path, int]] = {}
        self._base = base
        self._last: Path = Path()
        self._constructor = yaml.constructor.SafeConstructor()

    def problem(self, place: Place, message: str) -> Problem:
        """At the nearest node that exists in a file."""
        while place and place not in self.origins:
            place = place[:-1]
        path, line = self.origins.get(place, (self._last, 1))
        return Problem(path, line, message)

    def read(self, file: Path) -> bytes:
        self._last = file
        content = file.read_bytes()
        if len(content) > MAX_FILE_BYTES:
            self._say(file, 1, f"larger than {MAX_FILE_BYTES} bytes; split the file")
            return content
        try:
            root = _compose(content.decode("utf-8"))
            if root is not None:
                self._merge(file, root)
        except UnicodeDecodeError as error:
            self._say(file, content[: error.start].count(b"\n") + 1, "not UTF-8")
        except _Refused as error:
            self._say(file, error.line, str(error))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._say(file, mark.line + 1 if mark else 1, f"not YAML: {error.problem}")
        except (yaml.YAMLError, RecursionError) as error:
            self._say(file, 1, f"not YAML: {str(error).splitlines()[0]}")
        return content

    def _say(self, file: Path, line: int, message: str) -> None:
        self.problems.append(Problem(file, line, message))

    def _merge(self, file: Path, root: yaml.Node) -> None:
        if not isinstance(root, yaml.MappingNode):
            raise _Refused(root, "write a mapping of sections, such as 'pools:'")
        for key, node in root.value:
            section = key.value
            if isinstance(node, yaml.SequenceNode):
                items = self.document.setdefault(section, [])
                if not isinstance(items, list):
                    raise _Refused(key, f"'{section}' is a single object elsewhere")
                self.origins.setdefault((section,), (file, key.start_mark.line + 1))
                for item in node.value:
                    items.append(self._value(file, item, (section, len(items)), 1))
            elif section in self.document:
                path, line = self.origins[(section,)]
                raise _Refused(key, f"'{section}' is set at {_short(path)}:{line} already")
            else:
                self.origins[(section,)] = (file, key.start_mark.line + 1)
                self.document[section] = self._value(file, node, (section,), 1)

    def _value(self, file: Path, node: yaml.Node, place: Place, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _Refused(node, f"nested deeper than {MAX_DEPTH} levels")
        self.origins.setdefault(place, (file, node.start_mark.line + 1))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(file, v, (*place, i), depth + 1) for i, v in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key, value in node.value:
                name = str(key.value)
                if name in found:
                    raise _Refused(key, f"'{name}' stands here twice; keep one")
                self.origins[(*place, name)] = (file, key.start_mark.line + 1)
                found[name] = self._value(file, value, (*place, name), depth + 1)
            return found
        return self._scalar(file, node, place)

    def _scalar(self, file: Path, node: yaml.Node, place: Place) -> Any:
        try:
            value = self._constructor.construct_object(node)
        except ValueError as error:
            raise _Refused(node, f"{error}; put it in quotes if it is text") from None
        is_path = place[-1] == "weights" or (place[0] == "price_feeds" and place[-1] == "file")
        if not is_path or not isinstance(value, str):
            return value
        value = value.replace("${ORCHESTRATOR_STATE}", str(state_directory()))
        if value.startswith(("./", "../")) or place[-1] == "file":
            value = str(((self._base or file.parent) / value).resolve())
        if place[-1] == "file" and not Path(value).is_file():
            raise _Refused(node, f"no file at {value}; give the path of a price CSV")
        return value


class _Refused(Exception):
    def __init__(self, at: yaml.Node | yaml.Event, message: str) -> None:
        super().__init__(message)
        self.line = at.start_mark.line + 1 if at.start_mark else 1


def _compose(text: str) -> yaml.Node | None:
    """The nodes of one document, refusing what a reviewed file has no use for."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        refused = None
        if isinstance(event, yaml.AliasEvent):
            refused = "aliases are not taken; write it out"
        elif getattr(event, "anchor", None):
            refused = "anchors are not taken; write it out"
        elif tag := getattr(event, "tag", None):
            refused = f"the tag {tag} is not taken; leave it out"
        elif depth > MAX_DEPTH:
            refused = f"nested deeper than {MAX_DEPTH} levels"
        if refused:
            raise _Refused(event, refused)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    return node


def _sentence(error: ErrorDetails) -> str:
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"]).lstrip(".")
    if error["type"] == "extra_forbidden":
        known = _fields_at(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(known)}"
        return f"{where}: unknown field; {hint}"
    if error["type"] == "missing":
        return f"{where}: is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}"


def _fields_at(place: Place) -> list[str]:
    """The names of the fields of the spec at this place of the document."""
    spec: type[BaseModel] = Configuration
    for part in place:
        if isinstance(part, int) or part not in spec.model_fields:
            continue
        annotation: Any = spec.model_fields[part].annotation
        inside = [annotation, *get_args(annotation)]
        spec = next((a for a in inside if isinstance(a, type) and issubclass(a, BaseModel)), spec)
    return list(spec.model_fields)


def _short(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
