"""Who waits for a replica, in the order in which they go. Pure: time is an argument.

By priority, strictly: while something more important can go, nothing less important does. Among
workloads of one priority, the one that has had the least service: the Virtual Token Counter of
Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024). Within a workload, in the
order of arrival. Who can go nowhere now holds up only those that want the same: requests of one
workload, model and data class are a group, and a group rests until something changes for it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

PROMPT_TOKEN, OUTPUT_TOKEN = 1.0, 2.0
"""What a token counts as service; the weights of the paper."""
NEWEST_SHARE = 0.125
"""Of the mean output of a workload, that its newest request makes."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One request that waits."""

    workload: str
    priority: int
    group: Hashable
    """Requests that the same endpoints can take, all of one workload."""
    endpoints: Collection[str]
    """Where they could ever run."""
    home: tuple[str, ...]
    """Those of them where the workload runs while it does not burst."""
    arrived_s: float
    tokens: float
    """The service that it asks for."""
    number: int = 0
    """By the order in which they joined."""


T = TypeVar("T", bound=Ticket)


@dataclass(slots=True)
class _Group(Generic[T]):
    tickets: OrderedDict[int, T] = field(default_factory=OrderedDict)
    tokens: float = 0.0
    rests: bool = False

    @property
    def first(self) -> T:
        return next(iter(self.tickets.values()))

    @property
    def newest(self) -> T:
        return next(reversed(self.tickets.values()))


class FairQueue(Generic[T]):
    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Most that wait at once."""
        self.service: defaultdict[str, float] = defaultdict(float)
        """By workload. Only differences mean something."""
        self._groups: dict[Hashable, _Group[T]] = {}
        self._size = 0
        self._joined = 0
        self._last: dict[int, str] = {}
        """The workload that went last, by priority."""
        self._mean_output: dict[str, float] = {}

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        """By group."""
        return (t for group in self._groups.values() for t in group.tickets.values())

    def __contains__(self, ticket: T) -> bool:
        group = self._groups.get(ticket.group)
        return group is not None and group.tickets.get(ticket.number) is ticket

    def expected_tokens(self, workload: str, prompt_tokens: int, max_tokens: int) -> float:
        """The service that a request will be, as far as can be said: its output is taken to be as
        long as its workload's outputs are, or as it may be. `max_tokens` 0: as long as it likes."""
        output = self._mean_output.get(workload, 0.0)
        if max_tokens:
            output = min(output, max_tokens)
        return PROMPT_TOKEN * prompt_tokens + OUTPUT_TOKEN * output

    def arrives(self, workload: str, priority: int) -> None:
        """Whoever comes back from idleness has saved up nothing: it starts where the others are."""
        waiting = [
            self.service[first.workload]
            for group in self._groups.values()
            for first in [group.first]
            if first.priority == priority
        ]
        if waiting:
            least = min(waiting)
        elif priority in self._last:
            least = self.service[self._last[priority]]
        else:
            return
        if self.service[workload] < least:
            self.service[workload] = least

    def goes(self, workload: str, priority: int, tokens: float) -> None:
        """A request is sent that is expected to be so much service."""
        self._last[priority] = workload
        self.service[workload] += tokens

    def ended(self, workload: str, expected: float, prompt_tokens: int, output_tokens: int) -> None:
        """What it turned out to be counts in the place of what was expected."""
        used = PROMPT_TOKEN * prompt_tokens + OUTPUT_TOKEN * output_tokens
        self.service[workload] += used - expected
        if output_tokens:
            mean = self._mean_output.get(workload, float(output_tokens))
            self._mean_output[workload] = mean + NEWEST_SHARE * (output_tokens - mean)

    def join(self, ticket: T) -> T | None:
        """Who has to leave for it, perhaps itself: the newest of the lowest priority, and there of
        the workload with the most service, what it waits for included. None while there is room."""
        if not any(t.workload == ticket.workload for t in self._firsts(ticket.priority)):
            self.arrives(ticket.workload, ticket.priority)
        self._joined += 1
        ticket.number = self._joined
        self._add(ticket)
        if self._size <= self.limit:
            return None
        shed = self._least_important()
        self.leave(shed)
        return shed

    def replace(self, ticket: T, by: T) -> None:
        """`by` waits in its place, as if it had come when this one came."""
        self.leave(ticket)
        by.number = ticket.number
        group = self._add(by)
        for number in [number for number in group.tickets if number > by.number]:
            group.tickets.move_to_end(number)
        if group.first is by:
            group.rests = False

    def _add(self, ticket: T) -> _Group[T]:
        group = self._groups.setdefault(ticket.group, _Group())
        group.tickets[ticket.number] = ticket
        group.tokens += ticket.tokens
        self._size += 1
        return group

    def leave(self, ticket: T) -> None:
        """Does nothing for one that is not in the queue any more."""
        if ticket not in self:
            return
        group = self._groups[ticket.group]
        if group.first is ticket:
            group.rests = False
        del group.tickets[ticket.number]
        group.tokens -= ticket.tokens
        if not group.tickets:
            del self._groups[ticket.group]
        self._size -= 1

    def heads(self) -> list[T]:
        """The first of every group that does not rest, in the order in which they may go."""
        return sorted(
            (group.first for group in self._groups.values() if not group.rests),
            key=lambda t: (-t.priority, self.service[t.workload], t.number),
        )

    def rest(self, ticket: T) -> None:
        """Its group is not looked at again before something changes for it."""
        self._groups[ticket.group].rests = True

    def stir(self, endpoint: str | None = None) -> None:
        """Something changed there, or, with None, anywhere."""
        for group in self._groups.values():
            if group.rests and (endpoint is None or endpoint in group.first.endpoints):
                group.rests = False

    def ahead(self, workload: str, priority: int, endpoints: Collection[str]) -> int:
        """Requests that will likely be sent to these endpoints before one that joins now: all that
        are more important, those of its workload, and of the others as many in turn."""
        mine, above = 0, 0
        others: defaultdict[str, int] = defaultdict(int)
        for group in self._groups.values():
            first = group.first
            if first.priority < priority or not _meet(first.endpoints, endpoints):
                continue
            if first.priority > priority:
                above += len(group.tickets)
            elif first.workload == workload:
                mine += len(group.tickets)
            else:
                others[first.workload] += len(group.tickets)
        return above + mine + sum(min(count, mine + 1) for count in others.values())

    def wanted(self, endpoint: str) -> bool:
        """Whether somebody waits who could be sent there."""
        return any(endpoint in group.first.endpoints for group in self._groups.values())

    def _firsts(self, priority: int) -> Iterator[T]:
        return (g.first for g in self._groups.values() if g.first.priority == priority)

    def _least_important(self) -> T:
        lowest = min(group.first.priority for group in self._groups.values())
        groups = [g for g in self._groups.values() if g.first.priority == lowest]
        claims: defaultdict[str, float] = defaultdict(float)
        for group in groups:
            claims[group.first.workload] += group.tokens
        greediest = max(claims, key=lambda workload: self.service[workload] + claims[workload])
        return max(
            (g.newest for g in groups if g.first.workload == greediest), key=lambda t: t.number
        )


def _meet(one: Collection[str], other: Collection[str]) -> bool:
    return any(endpoint in other for endpoint in one)
