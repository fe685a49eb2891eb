"""What an oracle is asked: the work that arrives, and the replicas that can be had."""

import math
from dataclasses import dataclass

import numpy as np

from orchestrator.policy.arrays import Floats, Ints


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests by kind (K), endpoint (E) and bucket of arrival (T). A kind is a group, or those of
    a group's requests that are about as large: a policy that may miss a share of a group misses
    its largest, and kinds by size tell which these are."""

    group: Ints
    """(K), the number of each kind's group."""
    requests: Floats
    """(K, T)"""
    work_s: Floats
    """(K, E, T), the replica-seconds that all of a kind's requests of a bucket take at an
    endpoint; infinity: not allowed there. Counts where there are requests."""
    slack: Ints
    """(K), buckets after that of its arrival in which work is still in time: `slack_buckets`."""
    attainment: Floats
    """(G), the share of each group's requests that have to be in time."""
    spread: Floats | None = None
    """(K, T), the work of the largest request over the mean, at the endpoint where that is most.
    None: the requests of a kind and bucket are alike."""

    def spread_or_one(self) -> Floats:
        return np.ones_like(self.requests) if self.spread is None else self.spread

    def check(self) -> None:
        """A ValueError says what is wrong."""
        if self.work_s.ndim != 3:
            raise ValueError("work has to be an array of kinds, endpoints and buckets")
        kinds, _, buckets = self.work_s.shape
        if not buckets:
            raise ValueError("there are no buckets")
        _shape("requests", self.requests, (kinds, buckets))
        _shape("group", self.group, (kinds,))
        _shape("slack", self.slack, (kinds,))
        _shape("spread", self.spread_or_one(), (kinds, buckets))
        if not (np.isfinite(self.requests) & (self.requests >= 0)).all():
            raise ValueError("requests have to be finite and not negative")
        if not (self.work_s >= 0).all():
            raise ValueError("work has to be a number, not negative; infinity where not allowed")
        if not (np.isfinite(self.spread_or_one()) & (self.spread_or_one() >= 1)).all():
            raise ValueError("the largest request of a kind is not below its mean: spread >= 1")
        if (self.slack < 0).any():
            raise ValueError("slack has to be a number of buckets, not negative")
        if self.attainment.ndim != 1 or not ((self.attainment >= 0) & (self.attainment <= 1)).all():
            raise ValueError("attainment has to be a share from 0 to 1 for each group")
        if kinds and not 0 <= self.group.min() <= self.group.max() < len(self.attainment):
            raise ValueError(f"groups have to be numbers below {len(self.attainment)}")
        somewhere = (np.isfinite(self.work_s) & (self.requests > 0)[:, None, :]).any(axis=(1, 2))
        for kind in np.flatnonzero(self.requests.any(axis=1) & ~somewhere):
            raise ValueError(f"kind {kind} of group {self.group[kind]} is allowed at no endpoint")


@dataclass(frozen=True, slots=True)
class Supply:
    """Replicas by endpoint (E) and bucket (T)."""

    usd_per_replica_hour: Floats
    """(E, T), of replicas that run: the least where it changes inside a bucket; NaN where none can
    be had in all of it. May be negative. Of owned capacity that is paid for anyway: the energy."""
    min_replicas: Floats
    """(E), what is paid for in any case where it can be had."""
    max_replicas: Floats
    """(E) or (E, T), the most that are paid for at a time."""
    provision_s: Floats
    """(E)"""
    sunk_usd_per_hour: Floats | None = None
    """(E), what an endpoint costs whatever runs. None: nothing."""
    standing: Floats | None = None
    """(E), replicas that stand when the first bucket begins. None: the minimum."""

    def least(self) -> Floats:
        """(E, T)"""
        usd = self.usd_per_replica_hour
        return np.where(np.isnan(usd), 0.0, self.min_replicas[:, None])

    def most(self) -> Floats:
        """(E, T)"""
        usd = self.usd_per_replica_hour
        most = self.max_replicas if self.max_replicas.ndim == 2 else self.max_replicas[:, None]
        return np.where(np.isnan(usd), 0.0, np.broadcast_to(most, usd.shape))

    def start_usd(self, bucket_s: float) -> Floats:
        """(E, T), the least that is paid for a replica before it is there. Whatever raises the
        mean of a bucket over that of the one before starts in one of the two, and is provisioned
        at the prices from `provision_s` before until then. Where one of them is negative
        provisioning may pay for itself: zero."""
        usd = self.usd_per_replica_hour
        hours = self.provision_s / 3600
        cheapest = np.where(np.isnan(usd), np.inf, usd)
        least = cheapest.copy()
        for endpoint, provision_s in enumerate(self.provision_s):
            back = min(1 + math.ceil(provision_s / bucket_s), usd.shape[1] - 1)
            for shift in range(1, back + 1):
                np.minimum(
                    least[endpoint, shift:],
                    cheapest[endpoint, : usd.shape[1] - shift],
                    out=least[endpoint, shift:],
                )
        return np.where(np.isfinite(least), np.maximum(least, 0.0), 0.0) * hours[:, None]

    def check(self, endpoints: int, buckets: int) -> None:
        """A ValueError says what is wrong."""
        _shape("prices", self.usd_per_replica_hour, (endpoints, buckets))
        if np.isinf(self.usd_per_replica_hour).any():
            raise ValueError("prices have to be finite, or NaN where nothing can be had")
        if self.max_replicas.shape != (endpoints, buckets):
            _shape("max_replicas", self.max_replicas, (endpoints,))
        for name, values in (
            ("min_replicas", self.min_replicas),
            ("provision_s", self.provision_s),
            ("sunk_usd_per_hour", self.sunk_usd_per_hour),
            ("standing", self.standing),
        ):
            if values is not None:
                _shape(name, values, (endpoints,))
                if not np.isfinite(values).all():
                    raise ValueError(f"{name} has to be finite")
        if not np.isfinite(self.max_replicas).all():
            raise ValueError("max_replicas has to be finite")
        if (self.min_replicas < 0).any() or (self.provision_s < 0).any():
            raise ValueError("min_replicas and provision_s are not negative")
        if self.standing is not None and (self.standing < 0).any():
            raise ValueError("standing replicas are not negative")
        for endpoint in np.flatnonzero((self.least() > self.most()).any(axis=1)):
            raise ValueError(f"endpoint {endpoint} has min_replicas above max_replicas")


def slack_buckets(allowed_s: float, bucket_s: float) -> int:
    """The slack that misses no work that is done within `allowed_s` of its request's arrival, be
    that at the end of a bucket."""
    return math.ceil(allowed_s / bucket_s)


def _shape(name: str, values: Floats | Ints, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}, not {shape}")
