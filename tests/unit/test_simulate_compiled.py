"""What is compiled is kept until a source that it is made of changes."""

import ast
from pathlib import Path

import pytest

from orchestrator.simulate.kernel import compiled, lose, waiting_ages
from orchestrator.simulate.kernel.compiled import HERE, SOURCES, BesideSources

ONLY_TYPES = "orchestrator.policy.arrays"


def test_all_that_the_kernel_is_made_of_is_looked_at() -> None:
    root = HERE.parents[2]
    for source in HERE.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.module.startswith("orchestrator") and node.module != ONLY_TYPES:
                module = root / node.module.replace(".", "/")
                files = {module.with_suffix(".py"), module / "__init__.py"}
                assert files & set(SOURCES), f"{source} imports {node.module}"


def test_a_change_of_any_of_these_is_a_change_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, other = tmp_path / "a.py", tmp_path / "b.py"
    one.write_text("A = 1")
    other.write_text("B = 1")
    monkeypatch.setattr(compiled, "SOURCES", (one, other))
    stamps = set()
    for text in ("B = 1", "B = 2"):
        other.write_text(text)
        compiled.stamp.cache_clear()
        stamps.add(BesideSources(lose.py_func, str(one)).get_source_stamp())  # type: ignore[attr-defined]
    compiled.stamp.cache_clear()
    assert len(stamps) == 2


def test_compiled_functions_use_it() -> None:
    for function in (lose, waiting_ages):
        assert isinstance(function._cache._impl.locator, compiled.BesideSources | compiled.OfUser)  # type: ignore[attr-defined]
