"""What a controller must not forget when it is restarted."""

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from orchestrator.ledger.cost import Costs
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstState


class Memory(BaseModel):
    bursts: dict[str, BurstState] = {}
    targets: dict[str, int] = {}
    draining_published: dict[str, int] = {}
    warm: list[str] = []
    """Endpoints whose replicas have answered a request."""
    version: int = 0
    """Of the newest snapshot."""
    costs: Costs = Costs()
    charged_to_s: float | None = None
    """Up to when the replicas that exist are in `costs`; None: there were none before."""

    @classmethod
    def read(cls, path: Path) -> "Memory":
        """An empty one when there is no file. Raises ValueError for a file that is not whole."""
        if not path.exists():
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{path}: not a controller's state; move it away: {error}") from None

    def forget_fleet(self) -> None:
        """For a start from nothing: what was spent stays spent."""
        self.bursts, self.targets, self.draining_published = {}, {}, {}
        self.warm, self.charged_to_s = [], None

    def forget_unknown(self, catalogue: Catalogue) -> None:
        """Drops what is about pools, workloads and bursts that the configuration has no more."""
        self.bursts = {
            workload: state
            for workload, state in self.bursts.items()
            if workload in catalogue.workloads
            and (state.pool is None or state.pool in catalogue.burst_pools(workload))
        }
        self.targets = {e: n for e, n in self.targets.items() if e in catalogue.candidates}
        self.warm = [e for e in self.warm if e in catalogue.candidates]
        self.draining_published = {
            w: version for w, version in self.draining_published.items() if w in self.bursts
        }

    def write(self, path: Path) -> None:
        draft = path.with_suffix(".draft")
        draft.write_text(self.model_dump_json())
        os.replace(draft, path)
