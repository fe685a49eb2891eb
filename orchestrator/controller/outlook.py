"""What the controller expects to arrive, over restarts."""

import asyncio
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.capacity.forecast import LEARNED, Forecast, forecaster_of
from orchestrator.capacity.load import Load, Prompts
from orchestrator.policy.catalogue import Catalogue
from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.controller")
WRITE_S = 600.0
WORKLOADS = "workloads"


class Outlook:
    """A forecaster and its file, which holds rates alone. Without the file it learns anew."""

    def __init__(self, catalogue: Catalogue, path: Path, now_s: float) -> None:
        self._path = path
        self._forecaster = forecaster_of(catalogue)
        self._prompts = Prompts(catalogue)
        self._written_s = now_s
        self._writing: asyncio.Task[None] | None = None
        self._read()

    def follow(self, catalogue: Catalogue) -> None:
        """Other rules; what was learned of workloads that stay is kept."""
        before, after = self._forecaster, forecaster_of(catalogue)
        if (after.workloads, after.horizons_s) == (before.workloads, before.horizons_s):
            return
        after.learn(before.workloads, before.learned())
        self._forecaster, self._prompts = after, Prompts(catalogue)

    def observe(self, load: Mapping[str, Load], now_s: float) -> Mapping[str, Forecast]:
        """By workload. `load`: since the last call."""
        self._forecaster.observe(load, now_s)
        self._prompts.add(load)
        return self._forecaster.forecasts()

    @property
    def prompt_tokens(self) -> dict[str, float]:
        """Mean of what models are asked."""
        return self._prompts.means()

    def write_when_due(self, now_s: float) -> None:
        """Beside the event loop; a disk that hangs is not waited for."""
        if now_s - self._written_s < WRITE_S or (self._writing and not self._writing.done()):
            return
        self._written_s = now_s
        workloads = np.array(list(self._forecaster.workloads), str)
        learned = {name: values.copy() for name, values in self._forecaster.learned().items()}
        self._writing = asyncio.create_task(
            asyncio.to_thread(self._write, {WORKLOADS: workloads} | learned)
        )

    def _write(self, learned: Mapping[str, np.ndarray[Any, Any]]) -> None:
        packed = io.BytesIO()
        np.savez_compressed(packed, allow_pickle=False, **learned)
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}.draft")
        try:
            draft.write_bytes(packed.getvalue())
            os.replace(draft, self._path)
        except OSError as error:
            log.warning("what was learned of the load is not written: %s", without_text(error))

    def _read(self) -> None:
        try:
            with np.load(self._path, allow_pickle=False) as found:
                learned = {name: found[name] for name in LEARNED}
                self._forecaster.learn([str(w) for w in found[WORKLOADS]], learned)
        except FileNotFoundError:
            return
        except Exception as error:
            # It is only learned anew: nothing that this file could hold is worth not starting.
            log.warning(
                "%s is not what was learned of the load: %s", self._path, without_text(error)
            )
