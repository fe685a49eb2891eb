"""What is wrong with prices and their feeds, by line and with the mend."""

import os
from pathlib import Path

import pytest

from orchestrator.config.load import load
from tests.configurations import EXAMPLE, company, line, problems

POOLS = (EXAMPLE / "pools.yaml").read_text()
DRAW = 'avg(DCGM_FI_DEV_POWER_USAGE{modelName=~".*H100.*"})'
FEEDS = (EXAMPLE / "prices.yaml").read_text()


@pytest.mark.parametrize(
    ("before", "after", "mend"),
    [
        ("price: {feed: frankfurt-l40s-spot}", "price: {}", "give one of fixed_usd_per_gpu_hour,"),
        ("tariff: {usd_per_kwh: 0.34}", "tariff: {}", "give one of usd_per_kwh,"),
        ("tariff: {usd_per_kwh: 0.34}", "tariff: {feed: berlin-draw}", "name one in usd_per_kwh"),
        ("{feed: paris-opencost}", "{feed: berlin-power}", "name one in usd_per_gpu_hour"),
        ("{feed: paris-opencost}", "{feed: nothing}", "is not defined"),
        ("draw_feed: berlin-draw", "draw_feed: virginia", "name one in w"),
        ("usd_per_tonne: 85, g_per_kwh: 320", "usd_per_tonne: 85", "give one of g_per_kwh and"),
    ],
)
def test_a_wrong_price(tmp_path: Path, before: str, after: str, mend: str) -> None:
    head, found, tail = POOLS.rpartition(before)
    assert found
    (problem,) = problems(company(tmp_path, "pools.yaml", head + after + tail))
    assert problem.startswith(f"pools.yaml:{line(head + after, after)}: ")
    assert mend in problem


@pytest.mark.parametrize(
    ("before", "after", "mend"),
    [
        ("    file: prices/frankfurt-l40s-spot.csv\n", "", "give one of file, http and prometheus"),
        (
            "    refresh_s: 30\n    timeout_s: 10\n",
            "    time_scale: 2\n",
            "only a file is replayed",
        ),
        ("max_age_s: 600", "max_age_s: 20", "shorter than refresh_s, 30"),
        ("{lowest: 2, highest: 20}", "{lowest: 20, highest: 2}", "nothing lies between 20 and 2"),
        ("{lowest: 2, highest: 20}", "{factor: 1}", "greater than 1"),
        ('"Bearer ${BROKER_TOKEN}"', "Bearer abcdef", "write ${NAME} of an environment variable"),
        ("https://prices.broker", "http://prices.broker", "could read header 'Authorization'"),
        ("X-Scope-OrgID: inference", '"X Scope": a', "not a header of HTTP"),
        ('      query: avg(DCGM_FI_DEV_POWER_USAGE{modelName=~".*H100.*"})\n', "", "give a query"),
        ("value: /quotes", "value: quotes", "should match pattern"),
        ("https://prices.broker.example/", "https://prices.broker.example:x/", "not a URL"),
        ("https://prices.broker.example/", "https://user:secret@prices.example/", "pattern"),
    ],
)
def test_a_wrong_feed(tmp_path: Path, before: str, after: str, mend: str) -> None:
    assert before in FEEDS
    text = FEEDS.replace(before, after)
    (found,) = problems(company(tmp_path, "prices.yaml", text))
    assert mend in found
    assert found.startswith("prices.yaml:")
    assert "secret@" not in found
    assert "abcdef" not in found


def test_a_secret_for_this_machine_needs_no_https(tmp_path: Path) -> None:
    text = FEEDS.replace("https://prices.broker.example", "http://127.0.0.1:9000")
    assert load(company(tmp_path, "prices.yaml", text))


def test_a_file_of_a_feed_is_found_from_its_own_folder() -> None:
    feeds = load(EXAMPLE).configuration.price_feeds
    assert os.path.isabs(next(f.file for f in feeds if f.file))
