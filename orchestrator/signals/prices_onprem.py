"""What an hour of an owned GPU costs. Pure."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from orchestrator.config.spec import OnPremPrice, Tariff

HOURS_PER_YEAR = 8760
GRAMS_PER_TONNE = 1e6


@dataclass(frozen=True, slots=True)
class OnPremCost:
    """In USD per GPU-hour. Power may earn money."""

    hardware: float
    power: float
    carbon: float
    sentence: str

    @property
    def total(self) -> float:
        """Never below zero."""
        return max(0.0, self.hardware + self.power + self.carbon)


def onprem_cost(
    price: OnPremPrice, usd_per_kwh: float, gpu_w: float | None, g_per_kwh: float
) -> OnPremCost:
    """`gpu_w` is the measured draw of one GPU; None: what the configuration says of it."""
    watts = (price.gpu_w if gpu_w is None else gpu_w) + price.host_w
    kw = watts * price.pue / 1000
    hardware = price.hardware_usd / (price.years * HOURS_PER_YEAR)
    power = kw * usd_per_kwh
    usd_per_tonne = price.carbon.usd_per_tonne if price.carbon else 0
    carbon = kw * usd_per_tonne * g_per_kwh / GRAMS_PER_TONNE
    sentence = (
        f"{hardware:.3f} hardware + {power:.3f} power ({watts:.0f} W "
        f"{'as configured' if gpu_w is None else 'measured'} × PUE {price.pue:g} × "
        f"{usd_per_kwh:.4g} USD/kWh) + {carbon:.3f} carbon"
    )
    return OnPremCost(hardware, power, carbon, sentence)


def configured_usd_per_kwh(tariff: Tariff, now_s: float) -> float | None:
    """None for a tariff that a feed gives."""
    by_hour = tariff.usd_per_kwh_by_hour
    if by_hour is None:
        return tariff.usd_per_kwh
    return by_hour[datetime.fromtimestamp(now_s, ZoneInfo(tariff.timezone)).hour]
