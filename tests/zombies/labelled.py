"""The labelled set: what each scenario shows, sweep by sweep, and which zombies are in it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.zombies.world import SWEEP_S, Frame

Frames = Callable[[], Iterator[Frame]]


@dataclass(frozen=True)
class Scenario:
    name: str
    frames: Frames
    zombies: frozenset[str]
    """Keys of what must be found by its end, and of all that may be found at any time."""


SCENARIOS: list[Scenario] = []


def zombie(*keys: str) -> Callable[[Frames], Frames]:
    return _labelled(frozenset(keys))


def lookalike(frames: Frames) -> Frames:
    return _labelled(frozenset())(frames)


def minutes(count: float) -> range:
    """Seconds from the first sweep, at each sweep of so many minutes."""
    return range(0, int(count * 60) + 1, SWEEP_S)


def _labelled(zombies: frozenset[str]) -> Callable[[Frames], Frames]:
    def add(frames: Frames) -> Frames:
        SCENARIOS.append(Scenario(frames.__name__, frames, zombies))
        return frames

    return add
