"""What NVIDIA's DCGM exporter says of GPUs."""

from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.signals.exposition import samples

UTIL = "DCGM_FI_DEV_GPU_UTIL"
ENGINE_ACTIVE = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
USED = "DCGM_FI_DEV_FB_USED"
FREE = "DCGM_FI_DEV_FB_FREE"
POWER = "DCGM_FI_DEV_POWER_USAGE"
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"
XID = "DCGM_FI_DEV_XID_ERRORS"
WANTED = (UTIL, ENGINE_ACTIVE, USED, FREE, POWER, TEMPERATURE, XID)

BLANK = 0x7FFFFFF0
"""From here on DCGM's numbers mean that there is none."""
PERCENT = 100
MIG_SLICES = 7


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG instance of it. None is not known; it is not zero."""

    uuid: str
    instance: str | None = None
    """The MIG instance's id."""
    profile: str = ""
    """The MIG instance's size, such as `1g.10gb`."""
    index: str = ""
    host: str = ""
    model: str = ""
    utilization: float | None = None
    """Share of the time in which anything ran on it, 0 to 1."""
    memory_used_mib: float | None = None
    memory_free_mib: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    xid: int | None = None
    """The driver's last error code; 0: none."""
    pods: frozenset[str] = frozenset()
    """`namespace/pod` of those that it is given to, where Kubernetes tells; several where they
    share it."""
    at_s: float | None = None
    """The oldest time that the exposition itself gives for these values, where it gives one."""

    @property
    def name(self) -> str:
        own = self.uuid if self.instance is None else f"{self.uuid}/{self.instance}"
        return f"{self.host}/{own}" if self.host else own

    @property
    def share(self) -> float:
        """Of the whole GPU, as far as its profile tells."""
        slices = self.profile.partition("g")[0]
        return int(slices) / MIG_SLICES if slices.isdecimal() else 1.0


@dataclass(slots=True)
class _Seen:
    labels: dict[str, str]
    values: dict[str, float] = field(default_factory=dict)
    pods: set[str] = field(default_factory=set)
    times_s: list[float] = field(default_factory=list)


def parse(text: str) -> list[Gpu]:
    """The GPUs of one exposition, by name. Raises ValueError when it is not a DCGM exporter's."""
    seen: dict[tuple[str, str | None], _Seen] = {}
    for sample in samples(text, WANTED):
        labels = sample.labels
        uuid = labels.get("UUID") or labels.get("uuid")
        if not uuid:
            continue
        gpu = seen.setdefault((uuid, labels.get("GPU_I_ID") or None), _Seen(labels))
        if sample.value < BLANK:
            gpu.values[sample.name] = sample.value
        # What scrapes the exporter may take its labels for the exporter's own pod, and rename ours.
        pod = labels.get("exported_pod") or labels.get("pod")
        namespace = labels.get("exported_namespace") or labels.get("namespace", "")
        if pod:
            gpu.pods.add(f"{namespace}/{pod}")
        if sample.timestamp is not None:
            gpu.times_s.append(float(sample.timestamp))
    if not seen:
        raise ValueError(f"no {UTIL} and none of its kind among the metrics")
    return sorted((_gpu(*key, gpu) for key, gpu in seen.items()), key=lambda g: g.name)


def _gpu(uuid: str, instance: str | None, seen: _Seen) -> Gpu:
    labels, values = seen.labels, seen.values

    def get(name: str, valid: Callable[[float], bool] = lambda v: v >= 0) -> float | None:
        value = values.get(name)
        return value if value is not None and valid(value) else None

    percent = get(UTIL, lambda v: 0 <= v <= PERCENT)
    # Of a MIG instance DCGM has no utilization, only the time in which its engine was active.
    share = get(ENGINE_ACTIVE, lambda v: 0 <= v <= 1)
    xid = get(XID)
    return Gpu(
        uuid=uuid,
        instance=instance,
        profile=labels.get("GPU_I_PROFILE", ""),
        index=labels.get("gpu", ""),
        host=labels.get("Hostname", ""),
        model=labels.get("modelName", ""),
        utilization=share if percent is None else percent / PERCENT,
        memory_used_mib=get(USED),
        memory_free_mib=get(FREE),
        power_w=get(POWER),
        temperature_c=get(TEMPERATURE),
        xid=None if xid is None else int(xid),
        pods=frozenset(seen.pods),
        at_s=min(seen.times_s, default=None),
    )
