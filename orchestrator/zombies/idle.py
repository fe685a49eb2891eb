"""Replicas that nobody asks anything."""

from collections.abc import Iterator

from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.signals.reading import fresh, heard
from orchestrator.zombies.finding import Kind, Look, Mark, Suspect
from orchestrator.zombies.mends import give_back
from orchestrator.zombies.sweep import Endpoint, Engine, Sweep


def idle(sweep: Sweep, catalogue: Catalogue, max_age_s: float, now_s: float) -> Iterator[Look]:
    for name, endpoint in sweep.endpoints.items():
        candidate = catalogue.candidates.get(name)
        known = heard(endpoint.observed_s, max_age_s, now_s)
        if candidate is None or not known or candidate.cluster.kind == "openai":
            continue
        for engine in endpoint.engines:
            yield from _look(engine, endpoint, candidate, catalogue, max_age_s, now_s)


def _look(
    engine: Engine,
    endpoint: Endpoint,
    candidate: Candidate,
    catalogue: Catalogue,
    max_age_s: float,
    now_s: float,
) -> Iterator[Look]:
    room = endpoint.ready - endpoint.standby
    if room <= 0 or endpoint.held or endpoint.open_requests:
        # Whatever is open there, it may be any of the replicas that has it.
        yield Look(Kind.IDLE, engine.name)
        return
    metrics = fresh(engine.metrics, max_age_s, now_s)
    if metrics is None:
        return
    if metrics.running or metrics.waiting:
        yield Look(Kind.IDLE, engine.name)
        return
    mark: Mark
    if engine.replicas == 1:
        if metrics.success is None:
            return
        mark = metrics.counters
    else:
        # The front asks one replica after another, whose counters have nothing to do with each
        # other: only the gateways know that all of them are idle.
        if endpoint.open_requests is None or endpoint.served is None:
            return
        mark = (float(endpoint.served),)
    replicas = min(engine.replicas, room)
    yield Look(
        Kind.IDLE,
        engine.name,
        Suspect(
            after_s=catalogue.configuration.zombies.idle_after_s,
            evidence=f"nothing runs or waits and no request has ended on {engine.name}, "
            f"which has {endpoint.ready} replicas ready, {endpoint.standby} of them declared",
            mend=give_back(engine.name),
            cluster=candidate.cluster.name,
            pools=(candidate.pool.name,),
            gpus=replicas * candidate.pool.gpus_per_replica,
            endpoint=candidate.endpoint,
            replicas=replicas,
            mark=mark,
            room=room,
            doubt="a burst drains there, and is never forced" if endpoint.draining else None,
        ),
    )
