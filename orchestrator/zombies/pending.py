"""Replicas that were asked for and do not come."""

from collections.abc import Iterator

from orchestrator.policy.catalogue import Catalogue
from orchestrator.signals.reading import heard
from orchestrator.zombies.finding import Kind, Look, Suspect
from orchestrator.zombies.mends import give_back
from orchestrator.zombies.sweep import Sweep


def pending(sweep: Sweep, catalogue: Catalogue, max_age_s: float, now_s: float) -> Iterator[Look]:
    factor = catalogue.configuration.zombies.pending_factor
    for name, endpoint in sweep.endpoints.items():
        candidate = catalogue.candidates.get(name)
        if candidate is None or not heard(endpoint.observed_s, max_age_s, now_s):
            continue
        # Those that nobody wants any more are on their way out.
        late = min(endpoint.starting, endpoint.target - endpoint.ready)
        if late <= 0:
            yield Look(Kind.PENDING, name)
            continue
        limit_s = factor * candidate.pool.provision_s
        why = f" ({endpoint.failed})" if endpoint.failed else ""
        yield Look(
            Kind.PENDING,
            name,
            Suspect(
                after_s=limit_s,
                evidence=f"{late} replicas of {name} do not come up{why}, which takes "
                f"{candidate.pool.provision_s:g} s as a rule",
                mend=give_back(name),
                cluster=candidate.cluster.name,
                pools=(candidate.pool.name,),
                gpus=late * candidate.pool.gpus_per_replica,
                endpoint=name,
                replicas=late,
                # Where one has come up or another waits, the time begins anew. The cluster's
                # clock only tells them apart: how long it has been is for ours to say.
                mark=(endpoint.pending_since_s, float(endpoint.ready)),
            ),
        )
