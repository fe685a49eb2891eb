"""The short form of `python -m tests.benchmarks.soak`."""

from pathlib import Path

import uvloop

from tests.benchmarks.soak import soak


def test_streams_for_some_time_leave_memory_tasks_and_files_as_they_were(tmp_path: Path) -> None:
    report = uvloop.run(soak(tmp_path, streams=150, seconds=30, steps_per_s=40))
    print(report)
    assert not report.faults()
    assert report.answers > 150
