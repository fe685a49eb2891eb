"""What is ours in a cluster, and nobody's."""

from collections.abc import Iterator

from orchestrator.policy.catalogue import Catalogue
from orchestrator.signals.reading import fresh, heard
from orchestrator.zombies.finding import Kind, Look, Suspect
from orchestrator.zombies.mends import give_back
from orchestrator.zombies.sweep import Sweep


def orphans(sweep: Sweep, catalogue: Catalogue, max_age_s: float, now_s: float) -> Iterator[Look]:
    known = fresh(sweep.known, max_age_s, now_s)
    if known is None:
        return
    for instance in sweep.instances:
        if not heard(instance.observed_s, max_age_s, now_s):
            continue
        subject = f"{instance.cluster}/{instance.name}"
        if instance.endpoint in known or instance.busy:
            # It is somebody's, or it still ends what it has.
            yield Look(Kind.ORPHAN, subject)
            continue
        pool = catalogue.pools.get((instance.endpoint or "").partition("/")[0])
        runs = f"{instance.replicas} replicas" if instance.replicas else "no replica"
        what = f" of {instance.endpoint}" if instance.endpoint else ""
        yield Look(
            Kind.ORPHAN,
            subject,
            Suspect(
                after_s=catalogue.configuration.zombies.orphan_after_s,
                evidence=f"{instance.name} in cluster {instance.cluster} has {runs}{what} and is "
                "in no snapshot",
                mend=give_back(subject),
                cluster=instance.cluster,
                pools=(pool.name,) if pool else (),
                gpus=instance.replicas * (pool.gpus_per_replica if pool else 1),
                endpoint=instance.endpoint,
                replicas=instance.replicas,
                doubt=None
                if instance.busy is False or not instance.replicas
                else "whether a request is open there is not known",
            ),
        )
