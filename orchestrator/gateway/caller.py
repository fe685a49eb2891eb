"""Who is calling, once that is known, and what it may ask for."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.config.spec import Limits, Scope
from orchestrator.gateway.errors import ApiError

_WHOLE = Scope()
_ANY = Limits()


@dataclass(frozen=True, slots=True)
class Caller:
    id: str
    """Of the credential, for records: no secret."""
    workload: str
    scope: Scope = _WHOLE
    limits: Limits = _ANY
    """Of its own; those of the workload hold besides."""

    def may_use(self, model: str) -> bool:
        return self.scope.models is None or model in self.scope.models

    def check_model(self, model: str) -> None:
        """Raises ApiError 403 for a model outside the scope."""
        if self.scope.models is not None and model not in self.scope.models:
            raise _outside("models", self.scope.models, "model")

    def check_endpoint(self, name: str) -> None:
        """Raises ApiError 403 for an endpoint outside the scope."""
        if self.scope.endpoints is not None and name not in self.scope.endpoints:
            raise _outside("endpoints", self.scope.endpoints)


def _outside(what: str, allowed: Iterable[str], param: str | None = None) -> ApiError:
    return ApiError(
        403,
        "outside_scope",
        f"This key may use these {what} alone: {', '.join(allowed)}.",
        "permission_error",
        param,
    )
