"""One feed: asked beside the ticks, believed or not."""

import asyncio
import logging
from collections.abc import Iterable

from orchestrator.config.spec import PriceFeed
from orchestrator.signals.prices import FeedError, FileFeed, Said
from orchestrator.signals.prices_http import ask_http, ask_prometheus
from orchestrator.signals.prices_trust import Figure, Trust, judge, unreachable

log = logging.getLogger("orchestrator.prices")


class Feed:
    """Nothing here waits for the feed, and nothing that it does is raised."""

    def __init__(self, spec: PriceFeed, started_s: float) -> None:
        self.spec = spec
        self.failure: str | None = None
        """Why the newest fetch failed."""
        self._file = FileFeed(spec, started_s) if spec.file is not None else None
        self._trust: dict[str, Trust] = {}
        """By pool."""
        self._asked_s: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self._reading: asyncio.Future[Said] | None = None

    def follow(self, pools: Iterable[str]) -> None:
        """The pools that go by it from here on."""
        self._trust = {pool: self._trust.get(pool, Trust()) for pool in pools}

    def remember(self, pool: str, figure: Figure) -> None:
        """What was good before this object was made."""
        self._trust[pool] = Trust(figure)

    def figure(self, pool: str) -> Figure | None:
        """The last good one; it may be too old."""
        return self._trust[pool].good

    def trouble(self, pool: str) -> str | None:
        """Why the newest figure is not the last good one."""
        return self._trust[pool].refused or self.failure

    def refresh(self, now_s: float) -> None:
        """Asks when it is time to. Returns at once; needs a running event loop."""
        if self._asking is not None and not self._asking.done():
            return
        if self._asked_s is None or not 0 <= now_s - self._asked_s < self.spec.refresh_s:
            self._asked_s = now_s
            self._asking = asyncio.create_task(self._ask(now_s))

    async def settled(self) -> None:
        """Until the fetch that runs is over."""
        if self._asking is not None:
            await self._asking

    async def _ask(self, now_s: float) -> None:
        failure = None
        try:
            async with asyncio.timeout(self.spec.timeout_s):
                said = await self._said(now_s)
        except TimeoutError:
            failure = f"no answer within {self.spec.timeout_s:g} s"
        except FeedError as error:
            failure = str(error)
        except Exception as error:
            # Whatever it was: the others go on.
            failure = f"cannot be asked: {type(error).__name__}"
        if failure is not None:
            if failure != self.failure:
                log.warning("price feed %s: %s", self.spec.name, failure)
            self._trust = {pool: unreachable(trust) for pool, trust in self._trust.items()}
        else:
            if self.failure is not None:
                log.info("price feed %s answers again", self.spec.name)
            self._judge(said, now_s)
        self.failure = failure

    async def _said(self, now_s: float) -> Said:
        """Raises FeedError."""
        if self.spec.http is not None:
            return await ask_http(self.spec.http)
        if self.spec.prometheus is not None:
            return await ask_prometheus(self.spec.prometheus)
        assert self._file is not None
        # A thread that hangs on a file cannot be ended: there is never more than this one.
        if self._reading is not None and not self._reading.done():
            raise FeedError(f"{self.spec.file}: reading it hangs")
        self._reading = asyncio.get_running_loop().run_in_executor(None, self._file.read, now_s)
        return await asyncio.shield(self._reading)

    def _judge(self, said: Said, now_s: float) -> None:
        for pool, before in self._trust.items():
            trust = judge(self.spec, before, said.of(pool), said.made_at_s, now_s)
            self._trust[pool] = trust
            if trust.refused is not None and trust.refused != before.refused:
                log.warning(
                    "price feed %s, pool %s: refused: %s", self.spec.name, pool, trust.refused
                )
            elif trust.refused is None and before.refused is not None:
                log.info("price feed %s, pool %s: believed again", self.spec.name, pool)
