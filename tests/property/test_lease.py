"""However controllers are paused and raced: never two of them lead."""

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controller.kubernetes_lease import LEASE_S, KubernetesLease
from tests.fake_leases import LeaseApi, Leases

pauses_s = st.sampled_from([0, 0, 0.1, 1.5, 4.9, 5.1, LEASE_S, LEASE_S + 0.1, 60])
steps = st.lists(st.tuples(st.integers(0, 2), pauses_s, pauses_s), max_size=25)
"""Who looks, what time passes before, and what in the middle of it."""


class World:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.in_the_middle_s = 0.0
        self.meanwhile: Callable[[], object] = lambda: None
        api = LeaseApi(Leases())
        self._replace = api.replace_namespaced_lease
        api.replace_namespaced_lease = self._slow_replace  # type: ignore[method-assign]
        self.leases = [
            KubernetesLease(api, "default", "controller", f"c{n}", lambda: self.now_s)
            for n in range(3)
        ]

    def _slow_replace(self, *args: object, **kwargs: object) -> object:
        """Between its look and its write a controller may stand still."""
        self.now_s += self.in_the_middle_s
        self.in_the_middle_s = 0
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return self._replace(*args, **kwargs)  # type: ignore[arg-type]

    def leaders(self) -> int:
        return sum(lease.held() for lease in self.leases)


@given(steps)
def test_there_is_never_more_than_one_leader(plan: list[tuple[int, float, float]]) -> None:
    async def inside() -> None:
        world = World()
        for who, before_s, in_the_middle_s in plan:
            world.now_s += before_s
            assert world.leaders() <= 1
            world.in_the_middle_s = in_the_middle_s
            await world.leases[who].keep()
            assert world.leaders() <= 1

    asyncio.run(inside())


@given(st.permutations(range(3)))
def test_of_those_that_look_at_the_same_time_one_gets_it(order: list[int]) -> None:
    """Another one looks and writes between the look and the write of the first."""

    async def inside() -> None:
        world = World()
        first, other, bystander = (world.leases[n] for n in order)
        for contender in (bystander, first, other):
            await contender.keep()
        world.now_s += LEASE_S + 1
        won: list[bool] = []
        world.meanwhile = lambda: won.append(other._take())
        await first.keep()
        assert won == [True]
        assert not first.held()

    asyncio.run(inside())
