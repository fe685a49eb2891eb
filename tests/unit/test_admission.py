"""Requests that wait are told one at a time when they may go, and none is forgotten."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gateway.admission import Admission, Outdated, Shed, Waiter

EXAMPLES = int(os.environ.get("ORCHESTRATOR_EXAMPLES", "200"))
FAR_S = 3600.0


class Engines:
    """Endpoints with so many places, and who goes to them."""

    def __init__(self, places: dict[str, int], limit: int = 100) -> None:
        self.admission: Admission[str] = Admission(limit)
        self.free = dict(places)
        self.taken: dict[str, str] = {}
        """By those who have been told and have not heard it yet."""
        self.order: list[str] = []
        self.looks = 0
        self.rules = 1
        self.reach: dict[str, tuple[str, ...]] = {}
        """Of those who can go elsewhere by later rules."""
        self.reading = asyncio.Event()
        """Whether what is known can be found anew."""
        self.reading.set()

    def waiter(
        self,
        name: str,
        workload: str = "chat",
        priority: int = 50,
        reach: tuple[str, ...] = ("home",),
        patience_s: float = FAR_S,
    ) -> Waiter[str]:
        until_s, rules = time.monotonic() + patience_s, self.rules

        def look(waiter: Waiter[str]) -> str | None:
            if rules != self.rules:
                raise Outdated
            self.looks += 1
            found = next((e for e in reach if self.free[e] > 0), None)
            if found is None:
                return "too late" if time.monotonic() >= until_s else None
            self.free[found] -= 1
            self.taken[name] = found
            return found

        async def renew() -> Waiter[str]:
            while True:
                read_by = self.rules
                await asyncio.sleep(0)
                await self.reading.wait()
                if read_by == self.rules:
                    left_s = until_s - time.monotonic()
                    now = self.reach.get(name, reach)
                    return self.waiter(name, workload, priority, now, left_s)

        group = workload, reach
        return Waiter(
            workload, priority, group, reach, (), 0.0, 1.0, until_s=until_s, look=look, renew=renew
        )

    def change(self) -> None:
        """Other rules are in force."""
        self.rules += 1
        self.admission.stir()

    async def ask(self, name: str, **how: Any) -> str:
        try:
            found = await self.admission.wait(self.waiter(name, **how))
        except asyncio.CancelledError:
            if name in self.taken:
                self.ends(self.taken.pop(name))
            raise
        self.order.append(name)
        self.taken.pop(name, None)
        return found

    def ends(self, endpoint: str) -> None:
        self.free[endpoint] += 1
        self.admission.stir(endpoint)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def asked(e: Engines, *asks: tuple[str, dict[str, Any]]) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(e.ask(name, **how)) for name, how in asks]


def test_what_becomes_free_goes_to_the_most_important_and_of_equals_to_who_came_first() -> None:
    async def test() -> None:
        e = Engines({"home": 0})
        tasks = asked(
            e,
            ("low", {"priority": 10, "workload": "batch"}),
            ("first", {}),
            ("second", {}),
            ("high", {"priority": 90, "workload": "care"}),
        )
        await settle()
        assert e.order == []
        for _ in tasks:
            e.ends("home")
            await settle()
        assert e.order == ["high", "first", "second", "low"]
        assert not e.admission.busy

    run(test)


def test_several_places_that_come_at_once_are_all_taken() -> None:
    async def test() -> None:
        e = Engines({"home": 0})
        tasks = asked(e, *((str(n), {}) for n in range(6)))
        await settle()
        e.free["home"] = 4
        e.admission.stir()
        await settle()
        assert e.order == ["0", "1", "2", "3"]
        for task in tasks[4:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not e.admission.busy

    run(test)


def test_one_that_comes_does_not_overtake_but_goes_at_once_where_there_is_room() -> None:
    async def test() -> None:
        e = Engines({"home": 0, "cloud": 1})
        waiting = asked(e, ("first", {}))
        await settle()
        assert await e.ask("elsewhere", workload="search", reach=("home", "cloud")) == "cloud"
        e.ends("home")
        late = asked(e, ("second", {}))
        await settle()
        assert e.order == ["elsewhere", "first"]
        e.ends("home")
        await asyncio.gather(*waiting, *late)

    run(test)


def test_a_place_for_one_that_is_cancelled_goes_to_the_next() -> None:
    async def test() -> None:
        e = Engines({"home": 0})
        first, second = asked(e, ("first", {}), ("second", {}))
        await settle()
        e.free["home"] = 1
        e.admission._next()  # `first` is told
        first.cancel()
        assert await second == "home"
        assert e.order == ["second"]

    run(test)


def test_one_whose_time_is_over_is_looked_at_once_more() -> None:
    async def test() -> None:
        e = Engines({"home": 0})
        assert await e.ask("impatient", patience_s=0.05) == "too late"
        assert e.looks == 2
        assert not e.admission.busy

    run(test)


def test_who_has_to_make_way_is_told() -> None:
    async def test() -> None:
        e = Engines({"home": 0}, limit=1)
        (low,) = asked(e, ("low", {"priority": 10, "workload": "batch"}))
        await settle()
        (high,) = asked(e, ("high", {}))
        with pytest.raises(Shed):
            await low
        with pytest.raises(Shed):
            await e.ask("newcomer", priority=10, workload="batch")
        e.ends("home")
        assert await high == "home"

    run(test)


def test_an_error_of_looking_is_told_to_the_one_it_is_about() -> None:
    async def test() -> None:
        e = Engines({"home": 0})
        broken = e.waiter("broken")
        tells: list[bool] = []

        def look(_: Waiter[str]) -> str | None:
            if tells:
                raise ValueError("the rules are gone")
            return None

        broken.look = look
        task = asyncio.create_task(e.admission.wait(broken))
        (second,) = asked(e, ("second", {"workload": "search"}))
        await settle()
        tells.append(True)
        e.ends("home")
        with pytest.raises(ValueError, match="gone"):
            await task
        assert await second == "home"

    run(test)


def test_one_who_is_outdated_goes_when_it_is_known_anew_and_nobody_overtakes_it_meanwhile() -> None:
    async def test() -> None:
        e = Engines({"home": 0})
        first, second = asked(e, ("first", {}), ("second", {}))
        await settle()
        e.reading.clear()
        e.change()
        e.ends("home")
        (newcomer,) = asked(e, ("newcomer", {}))
        await settle()
        assert e.order == []
        e.reading.set()
        assert await first == "home"
        for task in (second, newcomer):
            e.ends("home")
            assert await task == "home"
        assert e.order == ["first", "second", "newcomer"]

    run(test)


def test_the_outdated_hold_up_nobody_who_wants_something_else() -> None:
    async def test() -> None:
        e = Engines({"home": 0, "cloud": 0})
        (outdated,) = asked(e, ("outdated", {}))
        await settle()
        e.reading.clear()
        e.change()
        e.free["home"] = 1
        assert await e.ask("other", workload="search") == "home"
        e.ends("home")
        e.reading.set()
        assert await outdated == "home"

    run(test)


def test_one_that_may_go_elsewhere_by_what_is_known_anew_goes_there() -> None:
    async def test() -> None:
        e = Engines({"home": 0, "cloud": 1})
        first, second = asked(e, ("first", {}), ("second", {}))
        await settle()
        e.reach["second"] = ("cloud",)
        e.change()
        e.ends("home")
        assert await first == "home"
        assert await second == "cloud"

    run(test)


def test_one_that_is_shed_or_leaves_while_it_is_renewed_is_gone() -> None:
    async def test() -> None:
        e = Engines({"home": 0}, limit=2)
        low, leaving = asked(
            e, ("low", {"priority": 10, "workload": "batch"}), ("leaving", {"workload": "care"})
        )
        await settle()
        e.reading.clear()
        e.change()
        await settle()
        (high,) = asked(e, ("high", {}))
        await settle()
        leaving.cancel()
        e.reading.set()
        with pytest.raises(Shed):
            await low
        e.ends("home")
        assert await high == "home"
        assert not e.admission.busy

    run(test)


def test_one_whose_time_is_over_while_it_is_renewed_is_told_so() -> None:
    async def test() -> None:
        e = Engines({"home": 0})
        (task,) = asked(e, ("late", {"patience_s": 0.05}))
        await settle()
        e.reading.clear()
        e.change()
        await asyncio.sleep(0.1)
        assert not task.done()
        e.reading.set()
        assert await task == "too late"

    run(test)


def test_nobody_is_looked_at_while_nothing_changes() -> None:
    async def test() -> None:
        e = Engines({"home": 0, "cloud": 0})
        tasks = asked(e, *((str(n), {"workload": f"w{n % 3}"}) for n in range(30)))
        await settle()
        before = e.looks
        assert before == 3, "one for each group"
        e.admission.stir("cloud")
        await settle()
        assert e.looks == before
        e.ends("home")
        await settle()
        assert e.looks <= before + 4
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(test)


REACHES = (("home",), ("cloud",), ("home", "cloud"))
Steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(["care", "chat", "batch"]), st.integers(0, 2)),
        st.tuples(st.just("end"), st.sampled_from(["home", "cloud"]), st.just(0)),
        st.tuples(st.just("cancel"), st.just(""), st.integers(0, 20)),
        st.tuples(st.just("pause"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("change"), st.just(""), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(Steps, st.integers(0, 3))
def test_whatever_happens_no_room_is_left_unused_while_somebody_waits_for_it(
    steps: list[tuple[str, str, int]], places: int
) -> None:
    async def test() -> None:
        priorities = {"care": 90, "chat": 50, "batch": 10}
        e = Engines({"home": places, "cloud": places}, limit=8)
        tasks: list[tuple[asyncio.Task[str], tuple[str, ...]]] = []
        for what, name, number in steps:
            if what == "ask":
                reach = REACHES[number]
                how = {"workload": name, "priority": priorities[name], "reach": reach}
                tasks.append((asyncio.create_task(e.ask(str(len(tasks)), **how)), reach))
            elif what == "end":
                e.ends(name)
            elif what == "change":
                e.change()
            elif what == "cancel" and number < len(tasks):
                tasks[number][0].cancel()
            else:
                for _ in range(number):
                    await asyncio.sleep(0)
            assert len(e.admission.queue) <= 8
        await settle()
        for _ in tasks:
            await settle()
        for task, reach in tasks:
            if not task.done():
                assert not any(e.free[endpoint] for endpoint in reach)
            task.cancel()
        await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert not e.admission.busy
        assert len(e.admission.queue) == 0

    run(test)
