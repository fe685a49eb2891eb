"""Price files: read whole or not at all, replayed in their own time."""

import os
from pathlib import Path

import pytest

from orchestrator.config.spec import PriceFeed
from orchestrator.signals.prices import FeedError, FileFeed, read_feed


def write(path: Path, *rows: str) -> Path:
    path.write_text("time_s,usd_per_gpu_hour\n" + "".join(f"{r}\n" for r in rows))
    return path


def test_a_price_holds_until_the_next_and_the_last_for_good(tmp_path: Path) -> None:
    file = write(tmp_path / "p.csv", "1000,2.0", "1060,3.0")
    feed = FileFeed(PriceFeed(name="f", file=str(file), time_scale=10), started_s=500)
    prices = [feed.read(s).figures for s in (499, 500, 505.9, 506, 9999)]
    assert prices == [2.0, 2.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("row", ["x,1", "5", "5,nan", "5,-1", "5,0", "inf,1", "0,1"])
def test_a_wrong_row_is_reported_by_its_line(tmp_path: Path, row: str) -> None:
    file = write(tmp_path / "p.csv", "1,2.0", row)
    with pytest.raises(FeedError, match=r"p\.csv:3: "):
        read_feed(file)


def test_a_tariff_may_be_negative_and_has_a_column_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("time_s,usd_per_kwh\n0,-0.02\n")
    assert read_feed(file, "usd_per_kwh") == [(0, -0.02)]
    with pytest.raises(FeedError, match="time_s,usd_per_gpu_hour"):
        read_feed(file)


def test_a_file_that_goes_bad_is_told_until_it_is_mended(tmp_path: Path) -> None:
    file = write(tmp_path / "p.csv", "0,2.0")
    feed = FileFeed(PriceFeed(name="f", file=str(file)), started_s=0)
    assert feed.read(10).figures == 2.0
    file.write_text("nothing")
    os.utime(file, ns=(1, 1))
    for _ in range(2):
        with pytest.raises(FeedError):
            feed.read(20)
    file.unlink()
    with pytest.raises(FeedError):
        feed.read(30)
    write(file, "0,4.0")
    assert feed.read(40).figures == 4.0
