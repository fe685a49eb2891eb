"""Inheritance from profiles, resolved on the raw document, before it is validated.

An heir's own fields win whole; what it leaves out comes from its profile, then from that profile's.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Place = tuple[str | int, ...]
"""A path into the whole document, such as ("pools", 0, "name")."""
Origins = dict[Place, Any]

OWN = ("name", "inherits")


class BrokenInheritance(Exception):
    """An heir whose profile does not exist, or inherits from itself."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


def resolve(document: Mapping[str, Any], origins: Origins) -> dict[str, dict[str, str]]:
    """Completes the workloads of the document in place; `origins` then knows where each inherited
    value stands. Returns, by workload, the profile of each inherited field.

    Raises BrokenInheritance.
    """
    profiles = list(_mappings(document, "profiles"))
    by_name = {p.get("name"): (number, p) for number, p in profiles}
    inherited_places = _places_by_field(origins)
    for number, profile in profiles:
        list(_line(profile, ("profiles", number), by_name))
    taken: dict[str, dict[str, str]] = {}
    for number, workload in _mappings(document, "workloads"):
        for source, profile in _line(workload, ("workloads", number), by_name):
            for field, value in profile.items():
                if field in OWN or field in workload:
                    continue
                workload[field] = value
                taken.setdefault(str(workload.get("name")), {})[field] = str(profile["name"])
                for rest, origin in inherited_places.get((source, field), ()):
                    origins[("workloads", number, field, *rest)] = origin
    return taken


def _mappings(document: Mapping[str, Any], section: str) -> Iterator[tuple[int, dict[str, Any]]]:
    items = document.get(section)
    for number, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield number, item


def _line(
    heir: Mapping[str, Any], place: Place, by_name: Mapping[Any, tuple[int, dict[str, Any]]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The profiles that an heir inherits from, the nearest first."""
    seen: list[str] = []
    while "inherits" in heir:
        name = heir["inherits"]
        at: Place = (*place, "inherits")
        if name in seen:
            chain = " inherits ".join([*seen[seen.index(name) :], name])
            raise BrokenInheritance(at, f"a circle: {chain}; break it")
        if not isinstance(name, str) or name not in by_name:
            known = ", ".join(str(n) for n in by_name) or "none"
            raise BrokenInheritance(at, f"profile '{name}' is not defined; defined are: {known}")
        seen.append(name)
        number, heir = by_name[name]
        place = ("profiles", number)
        yield number, by_name[name][1]


def _places_by_field(origins: Origins) -> dict[tuple[int, str], list[tuple[Place, Any]]]:
    found: dict[tuple[int, str], list[tuple[Place, Any]]] = {}
    for place, origin in origins.items():
        match place:
            case ("profiles", int(number), str(field), *rest):
                found.setdefault((number, field), []).append((tuple(rest), origin))
    return found
