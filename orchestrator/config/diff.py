"""What differs between two configurations, object by object and field by field."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.config.load import Loaded


@dataclass(frozen=True, slots=True)
class Difference:
    """`place` is a path of sections, names of objects, and fields."""

    kind: Literal["added", "removed", "changed"]
    place: str
    before: Any = None
    after: Any = None


def differences(before: Loaded, after: Loaded) -> list[Difference]:
    """Keys aside: they are not rules."""
    return list(_compare((), _plain(before), _plain(after)))


AT_START = (
    "gateway.url",
    "gateway.cluster",
    "gateway.replicas",
    "gateway.timeouts.connect_s",
    "controller.url",
    "controller.lease",
    "clusters.",
)
AT_DEPLOYMENT_FIELD = re.compile(
    r"\.(weights|quantization|lora|task|served_name|engine_args|env|max_num_seqs|max_model_len)(\.|$)"
)


def taken_later(changes: Iterable[Difference]) -> Iterator[str]:
    """What of these changes a running stack does not take up: one sentence each."""
    for change in changes:
        place = change.place
        if place.startswith(AT_START):
            yield f"{place} is taken when the stack is started again"
        elif place.startswith("models.") and AT_DEPLOYMENT_FIELD.search(place):
            yield f"{place} is taken by replicas of deployments made from now on"
        elif place.startswith("pools.") and change.kind == "removed":
            yield f"replicas of {place} that run now go when the stack is stopped"


def _plain(loaded: Loaded) -> Any:
    raw = loaded.configuration.model_dump(mode="json", exclude={"keys"})
    return _as_written(raw, f"{loaded.directory}/")


def _as_written(value: Any, directory: str) -> Any:
    """Paths below the directory relative to it, as they are the same in a copy of it."""
    if isinstance(value, dict):
        return {k: _as_written(v, directory) for k, v in value.items()}
    if isinstance(value, list):
        return [_as_written(v, directory) for v in value]
    return value.removeprefix(directory) if isinstance(value, str) else value


def _compare(place: tuple[str, ...], before: Any, after: Any) -> Iterator[Difference]:
    if before == after:
        return
    old, new = _by_name(before), _by_name(after)
    if old is None or new is None:
        yield Difference("changed", ".".join(place), before, after)
        return
    for name in [*old, *(n for n in new if n not in old)]:
        inside = (*place, name)
        if name not in new:
            yield Difference("removed", ".".join(inside), before=old[name])
        elif name not in old:
            yield Difference("added", ".".join(inside), after=new[name])
        else:
            yield from _compare(inside, old[name], new[name])


def _by_name(value: Any) -> dict[str, Any] | None:
    """The fields of an object, or the objects of a list by their names; None for other values."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value):
        return {v["name"]: v for v in value}
    return None
