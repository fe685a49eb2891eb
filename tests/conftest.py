"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest

# pytest-xdist sets it in its workers, and a console that is made under it keeps that width.
os.environ.pop("COLUMNS", None)


@pytest.fixture(autouse=True)
def _environment_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves a variable behind would be found out by another one, hours later."""
    before = dict(os.environ)
    yield
    left = {k for k in before.keys() | os.environ.keys() if before.get(k) != os.environ.get(k)}
    left -= {"PYTEST_CURRENT_TEST"}
    if left:
        os.environ.clear()
        os.environ.update(before)
        pytest.fail(f"{request.node.nodeid} left {', '.join(sorted(left))} in the environment")
