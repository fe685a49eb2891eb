"""What the demonstration plays: a quiet start, a load that home alone cannot take, calm again."""

import time
from pathlib import Path
from typing import Any

from rich.table import Table

from orchestrator.cli.app import out
from orchestrator.cli.live import base_url, clip, drive, read_callers, show
from orchestrator.config.load import Loaded, state_directory
from orchestrator.policy.catalogue import Catalogue
from orchestrator.replay.saturation import output_tokens_per_s
from orchestrator.replay.verdict import Check, Scene, judge
from orchestrator.stack import records
from orchestrator.stack.ray_head import StackError
from orchestrator.traces import arrivals as traces
from orchestrator.traces.arrivals import Phase

QUIET_S, BUSY_S, AFTER_S = 20.0, 330.0, 30.0
BUSY_LOAD, QUIET_LOAD = 0.9, 0.3
"""Output tokens per second, as shares of what the home replicas can do alone. Less than all already
saturates them: the trace is bursty, and the gateway that relays for both runs beside them."""
COME_BACK_S = 180
MAX_PROMPT_TOKENS, MAX_OUTPUT_TOKENS = 1000, 300


async def play(
    loaded: Loaded, arrivals: list[traces.Arrival], name: str, out_dir: Path | None
) -> list[Check]:
    """Runs it on the stack that is up; returns what was to be seen. Raises StackError when the
    configuration has no such scene, openai.APIError when the endpoint does not serve."""
    scene = _scene(loaded)
    callers = read_callers(f"{scene.bursting}=3,{scene.resident}=1", loaded)
    arrivals = clip(arrivals, MAX_PROMPT_TOKENS, MAX_OUTPUT_TOKENS)
    model, capacity = await _capacity(loaded, scene, callers[1].api_key, arrivals)
    offered = sum(a.output_tokens for a in arrivals) / arrivals[-1].arrival_s
    out.print(f"home does {capacity:.0f} output tokens/s; the trace asks for {offered:.0f}")
    quiet, busy = (load * capacity / offered for load in (QUIET_LOAD, BUSY_LOAD))
    phases = [Phase(QUIET_S, quiet), Phase(BUSY_S, busy), Phase(AFTER_S, quiet)]
    run_id = time.strftime("%Y%m%dT%H%M%S")
    result = await drive(
        loaded,
        traces.rescale(arrivals, phases),
        callers,
        model,
        run_id,
        seed=0,
        until=lambda state: _is_back(state, scene),
        until_timeout_s=COME_BACK_S,
    )
    about = {"trace": name, "time_scale": busy, "run_id": run_id, "config_version": loaded.version}
    directory = out_dir or state_directory() / "demo"
    report = result.write(directory, about, loaded)
    show(report)
    out.print(f"report, requests and timeline: {directory}", soft_wrap=True)
    cluster = Catalogue(loaded.configuration, loaded.version).pools[scene.cloud_pool].cluster
    seen = records.request_ids(state_directory(), cluster, rf"replay-{run_id}-\d+")
    return judge(scene, result.replay.outcomes, result.observer.samples, seen)


def _scene(loaded: Loaded) -> Scene:
    """The workload that bursts on latency, and the one with the most sensitive data that may not.

    Raises StackError when the configuration has no such pair.
    """
    catalogue = Catalogue(loaded.configuration, loaded.version)
    workloads = loaded.configuration.workloads
    for away in workloads:
        stay = [w for w in workloads if w.burst is None and set(w.models) & set(away.models)]
        if away.burst and away.burst.ttft_p95_s and stay:
            resident = max(stay, key=lambda w: w.data_class)
            return Scene(
                bursting=away.name,
                resident=resident.name,
                home_pool=catalogue.home(resident.name)[0].pool.name,
                cloud_pool=away.burst.pools[0],
                ttft_p95_s=away.burst.ttft_p95_s,
                busy_until_s=QUIET_S + BUSY_S,
            )
    raise StackError("the demo needs a workload that bursts on TTFT, and one that never does")


async def _capacity(
    loaded: Loaded, scene: Scene, api_key: str, arrivals: list[traces.Arrival]
) -> tuple[str, float]:
    """The model that both workloads share, and the output tokens per second of its home."""
    catalogue = Catalogue(loaded.configuration, loaded.version)
    home = next(c for c in catalogue.home(scene.resident) if c.pool.name == scene.home_pool)
    slots = home.variant.max_num_seqs * home.pool.min_replicas
    url = f"{base_url(loaded)}/v1"
    with out.status("measuring what the home replicas can do"):
        figure = await output_tokens_per_s(
            url, api_key, home.model.name, arrivals, slots, duration_s=25
        )
    return home.model.name, figure


def _is_back(state: dict[str, Any], scene: Scene) -> bool:
    at_home: bool = state["bursts"][scene.bursting]["state"] == "home"
    return at_home and not state["pools"][scene.cloud_pool]["replicas"]


def show_checks(checks: list[Check]) -> None:
    table = Table("", "claim", "evidence")
    for check in checks:
        table.add_row("[green]✓" if check.holds else "[red]✗", check.claim, check.evidence)
    out.print(table)
