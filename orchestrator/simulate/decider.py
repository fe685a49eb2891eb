"""The gateway's decisions in a simulation: each is made once for what it depends on."""

from collections.abc import Hashable

from orchestrator.policy.decide import decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import Snapshot
from orchestrator.policy.view import View
from orchestrator.simulate import kernel
from orchestrator.simulate.fleet_model import GATEWAY, FleetModel
from orchestrator.simulate.tables import NOBODY

MOST_REMEMBERED = 2_000_000
REASONS = {"saturated": kernel.SATURATED, "no_capacity": kernel.NO_CAPACITY}


class UnknownSpeed(Exception):
    """Says of which variant, and the mend."""


class Decider:
    """Loads and lengths are rounded before they are decided on (`rounded_loads`, `prompt_step`), so
    that equal situations are met again."""

    def __init__(self, model: FleetModel) -> None:
        self._model = model
        self._situations: dict[Hashable, int] = {}
        self._view: View | None = None
        self._remembered = 0

    def follow(self, snapshot: Snapshot) -> None:
        """What is decided on from here on."""
        model = self._model
        self._view = View(model.catalogue, snapshot, GATEWAY)
        situation = model.state.groups["situation"]
        for group, workload in enumerate(model.workloads):
            burst = snapshot.bursts.get(workload.name)
            budget = snapshot.budget_left_usd.get(workload.name)
            seen: list[Hashable] = [
                group,
                (burst.phase, burst.pool) if burst else None,
                budget is None or budget > 0,
            ]
            for number in model.state.places[group]:
                if number == NOBODY:
                    break
                candidate = model.candidates[number]
                state = snapshot.endpoints[candidate.endpoint]
                quote = snapshot.quotes.get(candidate.pool.name)
                seen.append(
                    (
                        snapshot.prompt_tokens.get(candidate.model.name),
                        state.ready_replicas,
                        state.slot_s,
                        quote
                        and (quote.usd_per_gpu_hour, quote.valid_to_s >= snapshot.created_at_s),
                        candidate.pool.name in snapshot.holds,
                    )
                )
            situation[group] = self._situations.setdefault(tuple(seen), len(self._situations))

    def decide(self, group: int, key: int) -> None:
        """Remembers what becomes of the first request that waits in a group. Raises UnknownSpeed
        where it would be sent to a replica whose speed is not known."""
        assert self._view is not None
        model = self._model
        state, workload = model.state, model.workloads[group]
        if self._remembered > MOST_REMEMBERED:
            model.decisions.clear()
            self._remembered = 0
        self._remembered += 1
        request = state.requests[state.groups["first"][group]]
        facts = Facts(
            workload=workload.name,
            model=workload.models[0],
            prompt_tokens=2 ** int(kernel.prompt_step(request["prompt_tokens"])),
            inflight=kernel.rounded_loads(state),
        )
        decision = decide(facts, self._view)
        if decision.grant is None and workload.when_infeasible.min_quality is not None:
            smaller = decide(facts._replace(smaller_variant=True), self._view)
            decision = smaller if smaller.grant is not None else decision
        if decision.grant is None:
            model.decisions[key] = REASONS.get(decision.denied or "", kernel.NEVER)
            return
        candidate = decision.grant.candidate
        if candidate.performance is None:
            raise UnknownSpeed(
                f"variant '{candidate.variant.name}' has no `performance` on "
                f"{candidate.pool.accelerator}, pool '{candidate.pool.name}': add one, with what "
                "replicas do there"
            )
        model.decisions[key] = candidate.number
