"""What a controller must not forget when it is restarted."""

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from orchestrator.ledger.cost import Costs
from orchestrator.policy.snapshot import BurstState


class Memory(BaseModel):
    bursts: dict[str, BurstState] = {}
    targets: dict[str, int] = {}
    draining_published: dict[str, int] = {}
    costs: Costs = Costs()

    @classmethod
    def read(cls, path: Path) -> "Memory":
        """An empty one when there is no file. Raises ValueError for a file that is not whole."""
        if not path.exists():
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{path}: not a controller's state; move it away: {error}") from None

    def write(self, path: Path) -> None:
        draft = path.with_suffix(".draft")
        draft.write_text(self.model_dump_json())
        os.replace(draft, path)
