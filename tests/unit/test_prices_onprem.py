"""What an hour of an owned GPU costs."""

import csv
import gzip
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.spec import OnPremPrice, Tariff
from orchestrator.signals.prices_onprem import configured_usd_per_kwh, onprem_cost

GRID = Path(__file__).parents[3] / "shared" / "data" / "energy" / "grid_hourly.csv.gz"


def price(**changed: Any) -> OnPremPrice:
    raw: dict[str, Any] = {
        "hardware_usd": 35040,
        "years": 4,
        "gpu_w": 600,
        "host_w": 200,
        "pue": 1.25,
        "tariff": {"usd_per_kwh": 0.2},
        "carbon": {"usd_per_tonne": 100, "g_per_kwh": 300},
    }
    return OnPremPrice.model_validate(raw | changed)


def test_hardware_power_and_carbon_add_up() -> None:
    cost = onprem_cost(price(), 0.2, None, 300)
    assert cost.hardware == pytest.approx(1.0)
    assert cost.power == pytest.approx(0.2)  # 800 W × 1.25 is 1 kW
    assert cost.carbon == pytest.approx(0.03)  # 300 g at 100 USD a tonne
    assert cost.total == pytest.approx(1.23)


def test_a_measured_draw_takes_the_place_of_the_configured_one() -> None:
    cost = onprem_cost(price(), 0.2, 100, 0)
    assert cost.power == pytest.approx(0.3 * 1.25 * 0.2)
    assert "300 W measured" in cost.sentence
    assert "800 W as configured" in onprem_cost(price(), 0.2, None, 0).sentence


def test_power_that_earns_money_makes_hardware_cheaper_and_never_pays_for_it() -> None:
    assert onprem_cost(price(), -0.5, None, 0).total == pytest.approx(0.5)
    assert onprem_cost(price(), -5, None, 0).total == 0


def test_a_tariff_by_the_hour_is_read_in_its_time_zone() -> None:
    hours = [float(hour) for hour in range(24)]
    tariff = Tariff(usd_per_kwh_by_hour=hours, timezone="Asia/Kolkata")
    moment = datetime.fromisoformat("2026-07-01T20:00:00+00:00").timestamp()
    assert configured_usd_per_kwh(tariff, moment) == 1  # half past one
    berlin = Tariff(usd_per_kwh_by_hour=hours, timezone="Europe/Berlin")
    clocks_back = datetime.fromisoformat("2026-10-25T00:30:00+00:00").timestamp()
    assert [configured_usd_per_kwh(berlin, clocks_back + 3600 * n) for n in range(3)] == [2, 2, 3]


@pytest.mark.skipif(not GRID.exists(), reason="no ../shared/data/energy")
def test_a_year_of_real_power_prices_gives_a_price_at_every_hour() -> None:
    with gzip.open(GRID, "rt") as file:
        rows = [r for r in csv.DictReader(file) if r["region"] == "DE-LU"]
    tariffs = [float(r["price_usd_per_mwh"]) / 1000 for r in rows if r["price_usd_per_mwh"]]
    costs = [onprem_cost(price(), tariff, None, 300) for tariff in tariffs]
    assert min(tariffs) < 0
    assert min(c.total for c in costs) >= 0
    assert all(c.total < 1.03 for c, t in zip(costs, tariffs, strict=True) if t < 0)
    mean = sum(c.total for c in costs) / len(costs)
    assert mean == pytest.approx(1.03 + sum(tariffs) / len(tariffs), abs=0.01)
