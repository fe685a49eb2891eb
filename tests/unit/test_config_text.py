"""Whatever the files hold, there is a configuration, or problems with path and line."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.load import ConfigurationError, Problem, load
from tests.configurations import EXAMPLE, company, line, problems

FILES = sorted(f.name for f in EXAMPLE.glob("*.yaml"))
ODD = [
    *("", " ", "  ", "\t", "\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "é", "🙂"),
    *(":", ": ", "- ", "? ", "&a ", "*a", "!!int ", "!x ", "<<: ", "---\n", "...\n", "%YAML 9.9\n"),
    *("[", "]", "{", "}", ",", "#", "|", ">", "'", '"', "@", "`", "%", "\\", '"\\0"', '"\\ud800"'),
    *("null", "~", "true", "no", "=", ".nan", "-.inf", "1e999", "0x" + "f" * 40, "9" * 30, "-1"),
    *("2026-99-99", "2026-01-01 99:99:99", "22:00", "1:2:3.4", "1_000", "0o17", "010", "a" * 5000),
    *(
        "[[[[[[",
        "{{{{{{",
        "[" * 3000,
        "{a: " * 3000,
        "- " * 3000,
        "${ORCHESTRATOR_STATE}",
        "/",
        "..",
    ),
]


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("extra: &p {}\n", "&p", "anchors are not taken; write it out"),
        ("extra: {max_attempts: *n}\n", "*n", "aliases are not taken"),
        ("extra:\n  <<: {max_attempts: 1}\n", "<<", "merge keys are not taken"),
        ("extra: !!map {}\n", "!!map", "the tag tag:yaml.org,2002:map is not taken"),
        ("extra: !!python/object/apply:os.system [id]\n", "!!", "is not taken; leave it out"),
        ("extra:\n  max_attempts: !!int 3\n", "!!int", "is not taken; leave it out"),
        ("extra:\n  ? [a]\n  : 1\n", "[a]", "a key must be a plain name"),
        ("? {a: b}\n: 1\n", "{a: b}", "a key must be a plain name"),
        ("extra:\n  max_attempts: 1\n  max_attempts: 2\n", "max_attempts: 2", "twice; keep one"),
        ("profiles: []\nprofiles: []\n", "profiles: []\n", "twice; keep one"),
        ("extra: {}\n---\nextra: {}\n", "---", "a second document; keep one a file"),
        ("extra:\n  snapshot_stale_s: .inf\n", ".inf", "write a finite one"),
        ("extra:\n  snapshot_stale_s: .NaN\n", ".NaN", "write a finite one"),
        ("extra:\n  snapshot_stale_s: 1.0e+999\n", "1.0e", "write a finite one"),
        ("extra:\n  max_attempts: 9223372036854775808\n", "922", "does not fit into 64 bits"),
        (f"extra:\n  max_attempts: {'9' * 5000}\n", "999", "the number is too long"),
        ("extra:\n  max_attempts: 2026-99-99\n", "2026", "put it in quotes if it is text"),
        ('extra:\n  "a\\0b": 1\n', '"a', "a NUL character; remove it"),
        ('zones:\n  - name: "a\\0b"\n', '"a', "a NUL character; remove it"),
        ("extra:\n  max_attempts: [\n", "", "not YAML"),
        ("extra:\n  max_attempts: \x00\n", "max", "control characters are not allowed"),
        ("extra:\n\tmax_attempts: 3\n", "\tmax", "not YAML"),
        ("- extra\n", "- extra", "write a mapping of sections"),
        ("extra\n", "extra", "write a mapping of sections"),
        ("zones: {}\n", "zones", "'zones' is set at"),
        (
            "extra:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, 40)),
            "",
            "nested deeper than 20",
        ),
        ("extra: " + "[" * 100_000, "", "nested deeper than 20"),
        ("extra: " + "{a: " * 100_000, "", "nested deeper than 20"),
        ("extra: " + "- " * 100_000, "", "not YAML"),
        ("extra:\n  ?" + " ?" * 100_000, "", ""),
    ],
)
def test_yaml_that_a_reviewed_file_has_no_use_for(
    tmp_path: Path, text: str, at: str, message: str
) -> None:
    directory = company(tmp_path, "zzz.yaml", text)
    (problem,) = problems(directory)
    assert message in problem
    assert problem.startswith(f"zzz.yaml:{line(text, at)}: " if at else "zzz.yaml:")


def test_a_bomb_of_anchors_goes_off_nowhere(tmp_path: Path) -> None:
    text = 'a0: &a0 ["x"]\n' + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 20)
    )
    (problem,) = problems(company(tmp_path, text=text))
    assert problem == "more.yaml:1: anchors are not taken; write it out"


def test_a_file_of_ten_megabytes(tmp_path: Path) -> None:
    text = "profiles:\n" + "  - name: a\n" * 900_000
    (problem,) = problems(company(tmp_path, text=text))
    assert problem == "more.yaml:1: larger than 2097152 bytes; split the file"


def test_a_binary_file(tmp_path: Path) -> None:
    directory = company(tmp_path)
    (directory / "more.yaml").write_bytes(b"zones:\n" + bytes(range(256)))
    (problem,) = problems(directory)
    assert problem.startswith("more.yaml:3: not UTF-8")


def test_a_file_of_another_encoding(tmp_path: Path) -> None:
    directory = company(tmp_path)
    (directory / "more.yaml").write_bytes("zones: []".encode("utf-16"))
    (problem,) = problems(directory)
    assert problem.startswith("more.yaml:1: not UTF-8; save it as UTF-8")


@pytest.mark.parametrize("text", ["", "\n\n", "# a remark\n", "---\n", "--- null\n...\n"])
def test_a_file_that_says_nothing_is_no_problem(tmp_path: Path, text: str) -> None:
    load(company(tmp_path, text=text))


def test_what_is_no_file_or_cannot_be_read(tmp_path: Path) -> None:
    directory = company(tmp_path)
    (directory / "more.yaml").unlink()
    (directory / "folder.yaml").mkdir()
    (directory / "gone.yaml").symlink_to("nowhere")
    (directory / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(directory / "pipe.yaml")
    found = problems(directory)
    assert [p.split(":")[0] for p in found] == [
        "folder.yaml",
        "gone.yaml",
        "loop.yaml",
        "pipe.yaml",
    ]


@pytest.mark.parametrize("name", ["", "empty", "notes.txt", "gone"])
def test_a_directory_without_yaml(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("zones: []")
    (problem,) = problems(tmp_path / name)
    assert problem.endswith("no YAML files here; give a configuration directory")


@pytest.mark.parametrize("file", ["a" * 5000, "/", ".", "loop", "missing.csv", "\u202e.csv"])
def test_a_price_file_that_is_none(tmp_path: Path, file: str) -> None:
    text = f"price_feeds:\n  - name: extra\n    file: {file}\n"
    directory = company(tmp_path, text=text)
    (directory / "loop").symlink_to("loop")
    (problem,) = problems(directory)
    assert problem.startswith("more.yaml:3: ")
    assert problem.endswith("give the path of a price CSV")


def test_hours_and_countries_are_not_numbers_and_truths(tmp_path: Path) -> None:
    text = "zones:\n  - {name: oslo, jurisdiction: NO, max_data_class: public}\n"
    (problem,) = problems(company(tmp_path, text=text))
    assert "zones[0].jurisdiction: input should be a valid string; put it in quotes" in problem


def test_only_the_first_of_very_many_problems_are_told(tmp_path: Path) -> None:
    text = "zones:\n" + "  - {nam: a}\n" * 50_000
    found = problems(company(tmp_path, text=text))
    assert len(found) == 101
    assert found[0].startswith("more.yaml:2: ")
    assert "more problems from here on; mend those above first" in found[-1]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, str]:
    """A file of the example, with a few lines or characters deleted, doubled or replaced."""
    name = draw(st.sampled_from(FILES))
    text = (EXAMPLE / name).read_text()
    for _ in range(draw(st.integers(1, 4))):
        pieces = text.splitlines(keepends=True) if draw(st.booleans()) else list(text)
        if not pieces:
            break
        at = draw(st.integers(0, len(pieces) - 1))
        other = draw(
            st.sampled_from(ODD) | st.sampled_from(pieces) | st.text(max_size=5) | st.just(None)
        )
        match draw(st.sampled_from(["delete", "double", "replace", "insert"])):
            case "delete":
                del pieces[at : at + draw(st.integers(1, 5))]
            case "double":
                pieces[at] *= 2
            case "replace":
                pieces[at] = other or ""
            case "insert":
                pieces.insert(at, other or "")
        text = "".join(pieces)
    return name, text


def problems_or_none(directory: Path) -> list[Problem] | None:
    """None for a configuration that is valid."""
    try:
        load(directory)
    except ConfigurationError as error:
        return error.problems
    return None


@settings(max_examples=400, deadline=None)
@given(mutations())
def test_a_mutated_file_is_taken_or_refused_with_path_and_line(mutation: tuple[str, str]) -> None:
    name, text = mutation
    with tempfile.TemporaryDirectory() as made:
        directory = shutil.copytree(EXAMPLE, Path(made) / "company")
        (directory / name).write_bytes(text.encode())
        found = problems_or_none(directory)
        assert found is None or found
        for problem in found or ():
            lines = problem.path.read_bytes().decode().splitlines()
            assert problem.path.parent == directory
            assert 1 <= problem.line <= len(lines) + 1
            assert problem.message


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_taken_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "any.yaml").write_bytes(content)
        with pytest.raises(ConfigurationError):
            load(Path(made))
