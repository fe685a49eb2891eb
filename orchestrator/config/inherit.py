"""Inheritance from profiles, resolved on the raw document, before it is validated.

An heir's own fields win whole; what it leaves out comes from its profile, then from that profile's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import dropwhile
from operator import ne
from typing import Any

from orchestrator.config.spec import Workload

Place = tuple[str | int, ...]
"""A path into the whole document, such as ("pools", 0, "name")."""

INHERITABLE = Workload.model_fields.keys() - {"name", "inherits"}


@dataclass
class Inheritance:
    taken: dict[str, dict[str, str]] = field(default_factory=dict)
    """By workload, the profile of each inherited field."""
    broken: list[tuple[Place, str]] = field(default_factory=list)
    """Heirs whose profile does not exist, and circles of profiles."""
    moved: dict[Place, Place] = field(default_factory=dict)
    """From each inherited field to where it stands."""

    def origin(self, place: Place) -> Place:
        """Where the value at this place was written."""
        return self.moved.get(place[:3], place[:3]) + place[3:]


def resolve(document: Mapping[str, Any]) -> Inheritance:
    """Completes the workloads of the document in place."""
    result = Inheritance()
    profiles = dict(_mappings(document, "profiles"))
    numbers = {
        profile["name"]: number
        for number, profile in profiles.items()
        if isinstance(profile.get("name"), str)
    }
    fields = _fields(profiles, numbers, result.broken)
    for number, workload in _mappings(document, "workloads"):
        parent = _parent(workload, ("workloads", number), numbers, result.broken)
        for name, source in fields.get(parent, {}).items():
            if name in workload:
                continue
            workload[name] = profiles[source][name]
            result.moved["workloads", number, name] = ("profiles", source, name)
            taken = result.taken.setdefault(str(workload.get("name")), {})
            taken[name] = profiles[source]["name"]
    return result


def _fields(
    profiles: Mapping[int, dict[str, Any]],
    numbers: Mapping[str, int],
    broken: list[tuple[Place, str]],
) -> dict[int | None, dict[str, int]]:
    """By profile, the profile that each field of its heirs comes from."""
    found: dict[int | None, dict[str, int]] = {None: {}}
    for start in profiles:
        line: dict[int, None] = {}
        ahead: int | None = start
        while ahead is not None and ahead not in found and ahead not in line:
            line[ahead] = None
            ahead = _parent(profiles[ahead], ("profiles", ahead), numbers, broken)
        if ahead in line:
            last = next(reversed(line))
            circle = [*dropwhile(partial(ne, ahead), line), ahead]
            names = " inherits ".join(profiles[n]["name"] for n in circle)
            broken.append((("profiles", last, "inherits"), f"a circle: {names}; break it"))
            ahead = None
        inherited = found[ahead]
        for number in reversed(line):
            own = dict.fromkeys(profiles[number].keys() & INHERITABLE, number)
            inherited = found[number] = inherited | own
    return found


def _parent(
    heir: Mapping[str, Any],
    place: Place,
    numbers: Mapping[str, int],
    broken: list[tuple[Place, str]],
) -> int | None:
    name = heir.get("inherits")
    if name is None:
        return None
    if isinstance(name, str) and name in numbers:
        return numbers[name]
    known = ", ".join(numbers) or "none"
    broken.append(((*place, "inherits"), f"profile '{name}' is not defined; defined are: {known}"))
    return None


def _mappings(document: Mapping[str, Any], section: str) -> Iterator[tuple[int, dict[str, Any]]]:
    items = document.get(section)
    for number, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield number, item
