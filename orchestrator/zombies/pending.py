"""Replicas that are on their way for too long."""

from collections.abc import Iterator

from orchestrator.policy.catalogue import Catalogue
from orchestrator.signals.reading import heard
from orchestrator.zombies.finding import Kind, Look, Suspect
from orchestrator.zombies.mends import inspect
from orchestrator.zombies.sweep import Sweep


def pending(sweep: Sweep, catalogue: Catalogue, max_age_s: float, now_s: float) -> Iterator[Look]:
    patience = catalogue.configuration.controller.provision_patience
    for name, endpoint in sweep.endpoints.items():
        candidate = catalogue.candidates.get(name)
        if candidate is None or not heard(endpoint.observed_s, max_age_s, now_s):
            continue
        if not endpoint.starting:
            yield Look(Kind.PENDING, name)
            continue
        wanted = "" if endpoint.target > endpoint.ready else ", which nobody wants any more,"
        why = f" ({endpoint.failed})" if endpoint.failed else ""
        yield Look(
            Kind.PENDING,
            name,
            Suspect(
                after_s=patience * candidate.pool.provision_s,
                evidence=f"{endpoint.starting} replicas of {name}{wanted} do not come up{why}, "
                f"which takes {candidate.pool.provision_s:g} s as a rule",
                mend=inspect(candidate),
                cluster=candidate.cluster.name,
                pools=(candidate.pool.name,),
                gpus=endpoint.starting * candidate.pool.gpus_per_replica,
                endpoint=name,
                replicas=endpoint.starting,
                # Where one has come up, another waits or other numbers are wanted, the time begins
                # anew; not where each takes the place of one that failed. The cluster's clock only
                # tells them apart: how long it has been is for ours to say.
                mark=(
                    None if endpoint.failed else endpoint.pending_since_s,
                    float(endpoint.ready),
                    float(endpoint.target),
                ),
                doubt="why they do not come has to be found out",
            ),
        )
