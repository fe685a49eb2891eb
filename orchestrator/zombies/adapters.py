"""LoRA adapters that take up memory in an engine and are declared nowhere."""

from collections.abc import Iterator

from orchestrator.policy.catalogue import Catalogue
from orchestrator.signals.reading import fresh
from orchestrator.zombies.finding import Kind, Look, Suspect
from orchestrator.zombies.mends import unload
from orchestrator.zombies.sweep import Sweep


def adapters(sweep: Sweep, catalogue: Catalogue, max_age_s: float, now_s: float) -> Iterator[Look]:
    declared = {
        c.variant.served_name or c.model.name
        for c in catalogue.candidates.values()
        if c.variant.lora is not None
    }
    for name, endpoint in sweep.endpoints.items():
        candidate = catalogue.candidates.get(name)
        if candidate is None or candidate.cluster.kind == "openai":
            continue
        for engine in endpoint.engines:
            metrics = fresh(engine.metrics, max_age_s, now_s)
            used = metrics.adapters if metrics else frozenset()
            loaded = fresh(engine.adapters, max_age_s, now_s) or frozenset()
            for adapter in sorted(loaded | used):
                subject = f"{engine.name}#{adapter}"
                suspect = Suspect(
                    after_s=catalogue.configuration.zombies.adapter_after_s,
                    evidence=f"adapter '{adapter}' is loaded on {engine.name}, and no variant "
                    "declares it",
                    mend=unload(candidate.url, adapter),
                    cluster=candidate.cluster.name,
                    pools=(candidate.pool.name,),
                    gpus=0,
                    endpoint=name,
                    doubt="somebody may use it past the gateway",
                )
                yield Look(Kind.ADAPTER, subject, None if adapter in declared else suspect)
