"""What becomes of requests whose replicas were lost: another attempt, where the gateway would make
one."""

from orchestrator.policy.retries import RetryBudget
from orchestrator.simulate import kernel
from orchestrator.simulate.decider import Decider
from orchestrator.simulate.fleet_model import FleetModel


class Losses:
    def __init__(self, model: FleetModel, decider: Decider) -> None:
        self._model, self._decider = model, decider
        configuration = model.catalogue.configuration
        self._policy = configuration.policy
        self._budgets = [RetryBudget() for _ in range(configuration.gateway.replicas)]
        """Of each replica of the gateway: they share the requests."""
        self._arrived = 0

    def settle(self, now_s: float) -> None:
        """Raises UnknownSpeed."""
        lost = self._model.lost()
        if not lost:
            return
        self._earn(now_s)
        for turn, number in enumerate(lost):
            kernel.go_on(self._model.state, number, self._found(turn, number))

    def _earn(self, now_s: float) -> None:
        arrived = int(self._model.state.groups["arrived"].sum())
        since, self._arrived = arrived - self._arrived, arrived
        for budget in self._budgets:
            budget.request(self._policy.retry_budget * since / len(self._budgets), now_s)

    def _found(self, turn: int, number: int) -> int:
        attempts = int(self._model.state.requests["attempts"][number])
        if attempts >= self._policy.max_attempts:
            return kernel.NEVER
        if not self._budgets[turn % len(self._budgets)].spend():
            return kernel.NEVER
        return self._decider.elsewhere(number)
