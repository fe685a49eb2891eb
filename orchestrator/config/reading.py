"""YAML files as one document, with the file and line of every node.

Takes what a reviewed file has a use for, and refuses the rest of YAML.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config.inherit import Place

MAX_FILE_BYTES = 2 * 1024 * 1024
MAX_DEPTH = 20
LONGEST_NUMBER = 80
"""In characters: 64 bits, written in binary."""
_TAG = "tag:yaml.org,2002:"
_NUMBERS = (f"{_TAG}int", f"{_TAG}float")
_TYPED = (*_NUMBERS, f"{_TAG}null", f"{_TAG}bool", f"{_TAG}timestamp")


@dataclass(frozen=True)
class Problem:
    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{short(self.path)}:{self.line}: {self.message}"


def short(path: Path) -> Path:
    """As seen from the working directory, where it lies there."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def state_directory() -> Path:
    """Where this machine keeps what is not configuration: secrets, ledger, models, logs."""
    return Path(os.environ.get("ORCHESTRATOR_STATE", ".orchestrator")).absolute()


class Reading:
    """One document gathered from many files."""

    def __init__(self, base: Path | None = None) -> None:
        self.document: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._origins: dict[Place, tuple[Path, int]] = {}
        self._base = base
        self._file = Path()
        self._events: Iterator[yaml.Event] = iter(())
        self._resolver = yaml.resolver.Resolver()
        self._constructor = yaml.constructor.SafeConstructor()

    def problem(self, place: Place, message: str) -> Problem:
        """At the nearest node that exists in a file."""
        while place and place not in self._origins:
            place = place[:-1]
        path, line = self._origins.get(place, (self._file, 1))
        return Problem(path, line, message)

    def read(self, file: Path) -> bytes:
        """Adds the sections of the file, or what is wrong with it; returns its content."""
        self._file = file
        content = b""
        try:
            if not file.is_file():
                self._say(1, "not a file; give it another name or remove it")
            elif file.stat().st_size > MAX_FILE_BYTES:
                self._say(1, f"larger than {MAX_FILE_BYTES} bytes; split the file")
            else:
                content = file.read_bytes()
                self._events = yaml.parse(content.decode("utf-8"), Loader=yaml.CSafeLoader)
                self._stream()
        except OSError as error:
            self._say(1, f"cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            self._say(content[: error.start].count(b"\n") + 1, "not UTF-8; save it as UTF-8 text")
        except _Refused as error:
            self._say(error.line, str(error))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._say(mark.line + 1 if mark else 1, f"not YAML: {error.problem}")
        except yaml.reader.ReaderError as error:
            line = content[: error.position].count(b"\n") + 1
            self._say(line, f"not YAML: {error.reason}")
        return content

    def _say(self, line: int, message: str) -> None:
        self.problems.append(Problem(self._file, line, message))

    def _stream(self) -> None:
        next(self._events)
        document = next(self._events)
        if isinstance(document, yaml.StreamEndEvent):
            return
        root = self._next()
        if isinstance(root, yaml.MappingStartEvent):
            self._sections()
        elif not isinstance(root, yaml.ScalarEvent) or self._scalar(root) is not None:
            raise _Refused(root, "write a mapping of sections, such as 'pools:'")
        next(self._events)
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            raise _Refused(following, "a second document; keep one a file")

    def _sections(self) -> None:
        here: set[str] = set()
        for section, key, event in self._pairs(here):
            place = (section,)
            stands = self._origins.setdefault(place, (self._file, _line(key)))
            if not isinstance(event, yaml.SequenceStartEvent):
                if section in self.document:
                    path, line = stands
                    raise _Refused(key, f"'{section}' is set at {short(path)}:{line} already")
                self.document[section] = self._value(event, place, 1)
                continue
            items = self.document.setdefault(section, [])
            if not isinstance(items, list):
                raise _Refused(key, f"'{section}' is a single object elsewhere")
            for item in self._items():
                items.append(self._value(item, (section, len(items)), 1))

    def _value(self, event: yaml.Event, place: Place, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _Refused(event, f"nested deeper than {MAX_DEPTH} levels")
        self._origins.setdefault(place, (self._file, _line(event)))
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            return self._path(event, place, value) if isinstance(value, str) else value
        if isinstance(event, yaml.SequenceStartEvent):
            return [
                self._value(item, (*place, number), depth + 1)
                for number, item in enumerate(self._items())
            ]
        found: dict[str, Any] = {}
        for name, key, value in self._pairs(set()):
            inside = (*place, name)
            self._origins[inside] = (self._file, _line(key))
            found[name] = self._value(value, inside, depth + 1)
        return found

    def _items(self) -> Iterator[yaml.Event]:
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            yield event

    def _pairs(self, seen: set[str]) -> Iterator[tuple[str, yaml.Event, yaml.Event]]:
        """The name, the key and the first event of the value, of each pair of a mapping."""
        while not isinstance(key := self._next(), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise _Refused(key, "a key must be a plain name")
            name = _text(key)
            if name == "<<":
                raise _Refused(key, "merge keys are not taken; write it out, or inherit a profile")
            if name in seen:
                raise _Refused(key, f"'{name}' stands here twice; keep one")
            seen.add(name)
            yield name, key, self._next()

    def _next(self) -> yaml.Event:
        event = next(self._events)
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(event, "aliases are not taken; write it out")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.anchor:
                raise _Refused(event, "anchors are not taken; write it out")
            if event.tag:
                raise _Refused(event, f"the tag {event.tag} is not taken; leave it out")
        return event

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text = _text(event)
        if not event.implicit[0]:
            return text
        tag = self._resolver.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        # 22:00 is a number to base 60 in YAML 1.1, and an hour to everybody.
        if tag not in _TYPED or (tag in _NUMBERS and ":" in text):
            return text
        if tag in _NUMBERS and len(text) > LONGEST_NUMBER:
            raise _Refused(event, "the number is too long; put it in quotes if it is text")
        try:
            node = yaml.ScalarNode(tag, text)
            value = self._constructor.yaml_constructors[tag](self._constructor, node)
        except (ValueError, OverflowError) as error:
            raise _Refused(event, f"{error}; put it in quotes if it is text") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise _Refused(event, f"{text} is not a number to count with; write a finite one")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _Refused(event, "the number does not fit into 64 bits; write a smaller one")
        return value

    def _path(self, event: yaml.Event, place: Place, value: str) -> str:
        """The value, with relative paths made absolute where it is a path."""
        what = _FILES.get((str(place[0]), str(place[-1])))
        if what is None and not (place[0] == "models" and place[-1] in ("weights", "lora")):
            return value
        value = value.replace("${ORCHESTRATOR_STATE}", str(state_directory()))
        try:
            if what or value.startswith(("./", "../")):
                value = str(((self._base or self._file.parent) / value).resolve())
            found = not what or Path(value).is_file()
        except (OSError, RuntimeError):
            found = False
        if not found:
            raise _Refused(event, f"no file at {value}; give the path of {what}")
        return value


_FILES = {
    ("price_feeds", "file"): "a price CSV",
    ("clusters", "ca_file"): "a PEM file",
    ("gateway", "jwks_file"): "a JSON Web Key Set",
}
"""Fields that name a file, by the section that they stand in, and what it holds."""


class _Refused(Exception):
    def __init__(self, at: yaml.Event, message: str) -> None:
        super().__init__(message)
        self.line = _line(at)


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark else 1


def _text(event: yaml.ScalarEvent) -> str:
    text: str = event.value
    if "\0" in text:
        raise _Refused(event, "a NUL character; remove it")
    return text
