"""What a controller must not forget when it is restarted."""

import errno
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from orchestrator.capacity.hold import Excess
from orchestrator.capacity.override import Override, OverrideKind
from orchestrator.capacity.planner import Decided
from orchestrator.capacity.provision import Provision
from orchestrator.config.spec import Cluster
from orchestrator.controller.charges import PoolPrice
from orchestrator.durable import sync_directory
from orchestrator.ledger.cost import Costs
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, Hold, Quote

log = logging.getLogger("orchestrator.controller")


OUTLIVES_THE_FLEET = ("holds", "overrides", "quotes", "prices", "version", "costs")


class MemoryNotWhole(ValueError):
    """The message names the file and the mend."""


class PoolHold(BaseModel):
    """Somebody's word that a pool takes no request."""

    hold: Hold
    until_s: float | None = None
    """Seconds since the epoch; None: until somebody ends it."""


class Memory(BaseModel):
    bursts: dict[str, BurstState] = {}
    targets: dict[str, int] = {}
    holds: dict[str, PoolHold] = {}
    """By pool."""
    overrides: dict[str, Override] = {}
    """By workload."""
    quotes: dict[str, Quote] = {}
    """By pool: the prices that the next ones are measured by."""
    draining_published: dict[str, int] = {}
    provisions: dict[str, Provision] = {}
    """How far endpoints are with what was ordered of them."""
    excess: dict[str, Excess] = {}
    """Of endpoints that have more than they need."""
    warm: list[str] = []
    """Endpoints whose replicas have answered a request."""
    version: int = 0
    """Of the newest snapshot."""
    costs: Costs = Costs()
    clusters: dict[str, Cluster] = {}
    """That are watched: those that the rules have no more until nothing of ours is left there."""
    prices: dict[str, PoolPrice] = {}
    """By pool: of the rules, and of what still runs without a place in them."""
    charged_to_s: float | None = None
    """Up to when the replicas that exist are in `costs`; None: there were none before."""

    @classmethod
    def read(cls, path: Path, fresh: bool = False) -> "Memory":
        """An empty one when there is no file; the one before when it is not whole. `fresh`: the
        fleet was started from nothing, so that what is about it is not kept; what was spent, what
        somebody said and prices are. Raises MemoryNotWhole where the one before is not whole
        either."""
        if not path.exists():
            return cls()
        try:
            return cls._load(path, fresh)
        except (OSError, ValueError, TypeError) as error:
            trouble = f"{path}: not a controller's state; move it away: {error}"
        try:
            found = cls._load(_before(path), fresh)
        except (OSError, ValueError, TypeError):
            raise MemoryNotWhole(trouble) from None
        log.error("%s is not a controller's state: %s is used", path, _before(path))
        return found

    @classmethod
    def _load(cls, path: Path, fresh: bool = False) -> "Memory":
        found = json.loads(path.read_bytes())
        if fresh:
            found = {name: found[name] for name in OUTLIVES_THE_FLEET if name in found}
        return cls.model_validate(found)

    def follow(self, catalogue: Catalogue, now_s: float) -> None:
        """Drops what is about pools that the configuration has no more, and about workloads that
        do not burst any more. A burst that is under way and has no place in it drains."""
        self.bursts = {
            workload: state
            if state.pool is None or state.pool in _burst_pools(catalogue, workload)
            else _ended(state, now_s)
            for workload, state in self.bursts.items()
            if state.pool in catalogue.pools
            or (state.pool is None and _burst_pools(catalogue, workload))
        }
        self.targets = {e: n for e, n in self.targets.items() if e in catalogue.candidates}
        self.provisions = {e: p for e, p in self.provisions.items() if e in catalogue.candidates}
        self.excess = {e: x for e, x in self.excess.items() if e in catalogue.candidates}
        self.holds = {p: h for p, h in self.holds.items() if p in catalogue.pools}
        self.overrides = {
            workload: override
            for workload, override in self.overrides.items()
            if (away := _burst_pools(catalogue, workload))
            and (override.pool is None or override.pool in away)
        }
        self.warm = [e for e in self.warm if e in catalogue.candidates]
        self.draining_published = {
            w: version for w, version in self.draining_published.items() if w in self.bursts
        }

    def skip(self, gap_s: float) -> None:
        """Nobody looked for so long: no condition has lasted for it. Negative: the clock went back,
        and takes all that has begun with it."""
        back_s = min(gap_s, 0)
        self.bursts = {
            workload: state.model_copy(
                update={
                    "since_s": state.since_s and state.since_s + back_s,
                    "condition_since_s": _later(state.condition_since_s, gap_s),
                }
            )
            for workload, state in self.bursts.items()
        }
        self.provisions = {
            endpoint: provision.model_copy(
                update={
                    "lacking_since_s": _later(provision.lacking_since_s, gap_s),
                    "retry_at_s": provision.retry_at_s and provision.retry_at_s + back_s,
                }
            )
            for endpoint, provision in self.provisions.items()
        }

        self.excess = {
            endpoint: excess.model_copy(update={"since_s": _later(excess.since_s, gap_s)})
            for endpoint, excess in self.excess.items()
        }

    def decided(self) -> Decided:
        """What the planner goes on from."""
        return Decided(
            bursts=self.bursts,
            targets=self.targets,
            draining_published=self.draining_published,
            provisions=self.provisions,
            overrides=self.overrides,
            excess=self.excess,
        )

    def expire(self, now_s: float) -> list[str]:
        """Drops words whose time is over; the pools and workloads that they were about."""
        pools = [p for p, h in self.holds.items() if h.until_s is not None and h.until_s <= now_s]
        workloads = [w for w, o in self.overrides.items() if not o.holds(now_s)]
        for pool in pools:
            del self.holds[pool]
        for workload in workloads:
            del self.overrides[workload]
        return pools + workloads

    def drop_what_is_done(self) -> None:
        """To release a burst is done once it is released."""
        self.overrides = {
            workload: override
            for workload, override in self.overrides.items()
            if override.kind is not OverrideKind.RELEASE
            or self.bursts.get(workload, BurstState()).phase is BurstPhase.BURSTING
        }

    def write(self, path: Path) -> None:
        """Raises OSError."""
        store(path, self.model_dump_json())


def store(path: Path, text: str, wanted: Callable[[], bool] = lambda: True) -> None:
    """So that it survives a crash of the machine; what was there is kept beside it. Waits for the
    disk. Raises OSError, also where it is not `wanted` any more when it could take its place."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if not wanted():
        draft.unlink()
        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
    _keep(path)
    os.replace(draft, path)
    sync_directory(path.parent)


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def _keep(path: Path) -> None:
    """As the one before, unless it is not whole: then the older one is worth more."""
    link = path.with_name(f"{path.name}.{os.getpid()}.before")
    with suppress(OSError, ValueError, TypeError):
        Memory._load(path)
        link.unlink(missing_ok=True)
        os.link(path, link)
        os.replace(link, _before(path))


def _later(at_s: float | None, by_s: float) -> float | None:
    return None if at_s is None else at_s + by_s


def _burst_pools(catalogue: Catalogue, workload: str) -> tuple[str, ...]:
    return catalogue.burst_pools(workload) if workload in catalogue.workloads else ()


def _ended(state: BurstState, now_s: float) -> BurstState:
    if state.phase is BurstPhase.DRAINING:
        return state
    reason = "the rules have no burst of it any more"
    return BurstState(phase=BurstPhase.DRAINING, pool=state.pool, since_s=now_s, reason=reason)
