"""Traces as blocks of columns."""

import gzip
from pathlib import Path

import pytest

from orchestrator.traces.requests import TraceError, read_blocks

HEADER = "arrival_s,prompt_tokens,output_tokens,workload\n"


def write(tmp_path: Path, rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(header + rows)
    return path


def test_blocks_hold_every_row_in_order(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(HEADER + "".join(f"{i},{i + 1},0,w{i}\n" for i in range(5)))
    blocks = list(read_blocks(path, rows=2))
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert [t for block in blocks for t in block.arrival_s.tolist()] == [0, 1, 2, 3, 4]
    assert [t for block in blocks for t in block.prompt_tokens.tolist()] == [1, 2, 3, 4, 5]
    assert [w for block in blocks for w in block.workload or ()] == ["w0", "w1", "w2", "w3", "w4"]


def test_without_the_column_there_are_no_workloads(tmp_path: Path) -> None:
    path = write(tmp_path, "0,1,1\n", "arrival_s,prompt_tokens,output_tokens\n")
    assert next(read_blocks(path)).workload is None


@pytest.mark.parametrize(
    ("rows", "line", "problem"),
    [
        ("0,1,1,a\n\nx,1,1,a\n", 4, "as a number"),
        ("0,1,1,a\n1,1\n", 3, "as many columns"),
        ("0,1,1,a\n1,99999999999999999999,1,a\n", 3, "whole numbers"),
        ("nan,1,1,a\n", 2, "from 0 up"),
        ("inf,1,1,a\n", 2, "from 0 up"),
        ("-1,1,1,a\n", 2, "from 0 up"),
        ("0,1,1,a\n3,1,1,a\n2,1,1,a\n", 4, "back in time"),
        ("0,-1,1,a\n", 2, "0 or more"),
        ("0,1,1,a\n1,1,1,c\n", 3, "no workload 'c'"),
        ("", 2, "no requests"),
    ],
)
@pytest.mark.parametrize("block_rows", [1, 2, 100])
def test_a_fault_is_named_with_its_line(
    tmp_path: Path, rows: str, line: int, problem: str, block_rows: int
) -> None:
    path = write(tmp_path, rows)
    with pytest.raises(TraceError) as error:
        list(read_blocks(path, frozenset({"a", "b"}), block_rows))
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert problem in str(error.value)
