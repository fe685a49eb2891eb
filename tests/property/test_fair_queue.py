"""Who waits goes by priority, and among workloads by the service that they have had."""

import os
from collections import defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.gateway.fair_queue import OUTPUT_TOKEN, PROMPT_TOKEN, FairQueue, Ticket

EXAMPLES = int(os.environ.get("ORCHESTRATOR_EXAMPLES", "1000"))
PRIORITIES = {"care": 90, "chat": 50, "search": 50, "batch": 10}
ENDPOINTS = {"home": ("home",), "cloud": ("home", "cloud")}


def ticket(
    workload: str, reach: str = "home", tokens: float = 1, priority: int | None = None
) -> Ticket:
    return Ticket(
        workload,
        PRIORITIES[workload] if priority is None else priority,
        (workload, reach),
        ENDPOINTS[reach],
        ("home",),
        arrived_s=0,
        tokens=tokens,
    )


class Queueing(RuleBasedStateMachine):
    """Any order of arrivals, departures and cancellations, beside a plain list."""

    @initialize(limit=st.integers(1, 6))
    def start(self, limit: int) -> None:
        self.queue: FairQueue[Ticket] = FairQueue(limit)
        self.waiting: list[Ticket] = []

    @rule(
        workload=st.sampled_from(list(PRIORITIES)),
        reach=st.sampled_from(list(ENDPOINTS)),
        tokens=st.integers(1, 100),
    )
    def one_joins(self, workload: str, reach: str, tokens: int) -> None:
        new = ticket(workload, reach, tokens)
        shed = self.queue.join(new)
        self.waiting.append(new)
        if shed is None:
            return
        assert len(self.waiting) > self.queue.limit
        lowest = min(t.priority for t in self.waiting)
        claims: dict[str, float] = defaultdict(float)
        for t in self.waiting:
            if t.priority == lowest:
                claims[t.workload] += t.tokens
        assert shed.priority == lowest
        most = max(self.queue.service[w] + claims[w] for w in claims)
        assert self.queue.service[shed.workload] + claims[shed.workload] == most
        assert shed is [t for t in self.waiting if t.workload == shed.workload][-1]
        self.waiting.remove(shed)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), reach=st.sampled_from(list(ENDPOINTS)), tokens=st.integers(1, 100))
    def one_is_found_to_be_another(self, data: st.DataObject, reach: str, tokens: int) -> None:
        before = data.draw(st.sampled_from(self.waiting))
        other = ticket(before.workload, reach, tokens)
        service = dict(self.queue.service)
        self.queue.replace(before, other)
        self.waiting[self.waiting.index(before)] = other
        assert before not in self.queue
        assert other in self.queue
        assert dict(self.queue.service) == service

    @precondition(lambda self: self.queue.heads())
    @rule(data=st.data(), tokens=st.integers(1, 100))
    def the_first_goes(self, data: st.DataObject, tokens: int) -> None:
        head = self.queue.heads()[0]
        self.queue.leave(head)
        self.queue.goes(head.workload, head.priority, tokens)
        self.waiting.remove(head)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def one_gives_up(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.waiting))
        self.queue.leave(gone)
        self.queue.leave(gone)
        self.waiting.remove(gone)

    @precondition(lambda self: self.queue.heads())
    @rule(data=st.data())
    def one_is_looked_at_in_vain(self, data: st.DataObject) -> None:
        self.queue.rest(data.draw(st.sampled_from(self.queue.heads())))

    @rule(endpoint=st.sampled_from([None, "home", "cloud"]))
    def something_changes(self, endpoint: str | None) -> None:
        self.queue.stir(endpoint)
        expected = {t.group for t in self.waiting if endpoint is None or endpoint in t.endpoints}
        assert expected <= {t.group for t in self.queue.heads()}

    @rule(workload=st.sampled_from(list(PRIORITIES)), tokens=st.integers(0, 100))
    def one_ends(self, workload: str, tokens: int) -> None:
        self.queue.ended(workload, 0, tokens, tokens)

    @invariant()
    def the_same_wait_and_no_more_than_may(self) -> None:
        if hasattr(self, "queue"):
            assert set(self.queue) == set(self.waiting)
            assert len(self.queue) == len(self.waiting) <= self.queue.limit

    @invariant()
    def heads_are_the_first_of_their_groups_in_order(self) -> None:
        if not hasattr(self, "queue"):
            return
        heads = self.queue.heads()
        for head in heads:
            assert head is next(t for t in self.waiting if t.group == head.group)
        ranks = [(-h.priority, self.queue.service[h.workload]) for h in heads]
        assert ranks == sorted(ranks)


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=EXAMPLES // 2, stateful_step_count=30, deadline=None)


Work = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 200)), min_size=30, max_size=30)


def cost(prompt: int, output: int) -> float:
    return PROMPT_TOKEN * prompt + OUTPUT_TOKEN * output


def backlogged(queue: FairQueue[Ticket], works: dict[str, list[tuple[int, int]]]) -> None:
    for workload, requests in works.items():
        for prompt, output in requests:
            queue.join(ticket(workload, tokens=cost(prompt, output)))


@settings(max_examples=EXAMPLES, deadline=None)
@given(Work, Work, st.integers(1, 5))
def test_two_backlogged_workloads_get_the_same_service_up_to_what_is_on_its_way(
    chat: list[tuple[int, int]], search: list[tuple[int, int]], slots: int
) -> None:
    """The bound of the paper: twice the most that can be open at once."""
    queue: FairQueue[Ticket] = FairQueue(1000)
    works = {"chat": list(chat), "search": list(search)}
    backlogged(queue, works)
    largest = max(cost(*request) for work in works.values() for request in work)
    had = dict.fromkeys(works, 0.0)
    running: list[tuple[str, float, int, int]] = []
    while all(works.values()):
        if len(running) == slots:
            workload, expected, prompt, output = running.pop(0)
            queue.ended(workload, expected, prompt, output)
            had[workload] += cost(prompt, output)
            assert abs(had["chat"] - had["search"]) <= 2 * (slots + 1) * largest
            on_its_way = sum(e for w, e, _, _ in running if w == workload)
            assert queue.service[workload] == pytest.approx(had[workload] + on_its_way)
        head = queue.heads()[0]
        queue.leave(head)
        prompt, output = works[head.workload].pop(0)
        expected = queue.expected_tokens(head.workload, prompt, 0)
        queue.goes(head.workload, head.priority, expected)
        running.append((head.workload, expected, prompt, output))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_who_was_idle_has_saved_up_nothing_and_owes_nothing_but_its_own_service(
    of_chat: int, of_search: int
) -> None:
    queue: FairQueue[Ticket] = FairQueue(1000)
    queue.goes("chat", 50, of_chat)
    queue.goes("search", 50, of_search)
    queue.join(ticket("search"))
    queue.join(ticket("chat"))
    assert queue.service["chat"] == max(of_chat, of_search)
    assert queue.service["search"] == of_search


def test_one_with_less_service_goes_first_and_then_they_take_turns() -> None:
    queue: FairQueue[Ticket] = FairQueue(100)
    backlogged(queue, {"chat": [(10, 0)] * 6, "search": [(30, 0)] * 2})
    order = list(go_one_by_one(queue))
    assert order == ["chat", "search", "chat", "chat", "chat", "search", "chat", "chat"]


def go_one_by_one(queue: FairQueue[Ticket]) -> Iterable[str]:
    while queue.heads():
        head = queue.heads()[0]
        queue.leave(head)
        queue.goes(head.workload, head.priority, head.tokens)
        yield head.workload


def test_a_head_that_can_go_nowhere_holds_up_only_its_own_group() -> None:
    queue: FairQueue[Ticket] = FairQueue(100)
    stuck, other = ticket("care"), ticket("care", "cloud")
    queue.join(stuck)
    queue.join(other)
    queue.rest(stuck)
    assert queue.heads() == [other]
    queue.stir("cloud")
    assert queue.heads() == [other]
    queue.stir("home")
    assert queue.heads() == [stuck, other]


def test_the_one_behind_a_resting_head_that_gives_up_is_looked_at() -> None:
    queue: FairQueue[Ticket] = FairQueue(100)
    first, second = ticket("care"), ticket("care")
    queue.join(first)
    queue.join(second)
    queue.rest(first)
    queue.leave(second)
    assert queue.heads() == []
    queue.join(second)
    queue.leave(first)
    assert queue.heads() == [second]


def test_a_flood_does_not_keep_another_workload_out_of_a_full_queue() -> None:
    queue: FairQueue[Ticket] = FairQueue(10)
    for _ in range(10):
        assert queue.join(ticket("chat", tokens=5)) is None
    shed = queue.join(ticket("search", tokens=5))
    assert shed is not None
    assert shed.workload == "chat"
    again = ticket("chat", tokens=5)
    assert queue.join(again) is again


def test_ahead_are_the_more_important_ones_own_and_as_many_of_each_other_in_turn() -> None:
    queue: FairQueue[Ticket] = FairQueue(100)
    for workload, count in (("care", 3), ("chat", 2), ("search", 9), ("batch", 7)):
        for _ in range(count):
            queue.join(ticket(workload))
    assert queue.ahead("care", 90, ["home"]) == 3
    assert queue.ahead("chat", 50, ["home"]) == 3 + 2 + 3
    assert queue.ahead("search", 50, ["home"]) == 3 + 9 + 2
    assert queue.ahead("batch", 10, ["home"]) == 21
    assert queue.ahead("batch", 10, ["elsewhere"]) == 0


def test_output_is_expected_to_be_as_long_as_it_was_or_may_be() -> None:
    queue: FairQueue[Ticket] = FairQueue(100)
    assert queue.expected_tokens("chat", 10, 0) == cost(10, 0)
    queue.ended("chat", 0, 10, 100)
    assert queue.expected_tokens("chat", 10, 0) == cost(10, 100)
    assert queue.expected_tokens("chat", 10, 7) == cost(10, 7)
    for _ in range(100):
        queue.ended("chat", 0, 10, 20)
    assert abs(queue.expected_tokens("chat", 10, 0) - cost(10, 20)) < 1
