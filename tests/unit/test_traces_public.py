"""Public traces of other formats."""

from pathlib import Path

import pytest

from orchestrator.traces.public import rows
from orchestrator.traces.requests import TraceError

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "azure",
            AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:47.1805900,9,1\n",
            [(0, 374, 44, ""), (0.5, 9, 1, "")],
        ),
        (
            "azure",
            AZURE + "2024-05-10 00:00:00.250000+00:00,1,2\n2024-05-10 00:00:01+00:00,3,4\n",
            [(0, 1, 2, ""), (0.75, 3, 4, "")],
        ),
        (
            "burstgpt",
            BURST + "5,ChatGPT,10,20,30,API log\n6,ChatGPT,7,0,7,API log\n8,GPT-4,1,2,3,API log\n",
            [(0, 10, 20, ""), (3, 1, 2, "")],
        ),
        (
            "mooncake",
            '{"timestamp": 1500, "input_length": 9, "output_length": 2, "hash_ids": [0, 7]}\n',
            [(0, 9, 2, "0 7")],
        ),
    ],
)
def test_requests_are_kept(
    tmp_path: Path, name: str, text: str, expected: list[tuple[float, int, int, str]]
) -> None:
    path = tmp_path / "source"
    path.write_text(text)
    found = list(rows(name, path))
    assert [row[1:] for row in found] == [row[1:] for row in expected]
    assert [row[0] for row in found] == pytest.approx([row[0] for row in expected])


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("azure", "TIMESTAMP,ContextTokens\n", 1),
        ("azure", AZURE + "2024-05-10 00:00:01,1,-2\n", 2),
        ("azure", AZURE + "2024-05-10 00:00:01,1,2\n2024-05-10 00:00:00,1,2\n", 3),
        ("mooncake", "{\n", 1),
        ("mooncake", "[]\n", 1),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, name: str, text: str, line: int) -> None:
    path = tmp_path / "source"
    path.write_text(text)
    with pytest.raises(TraceError, match=f":{line}: "):
        list(rows(name, path))
