"""The endpoint does as its description says, whatever schemathesis makes of that."""

import asyncio
import os
import re
import sys
from pathlib import Path

import orjson
import pytest

from orchestrator.gateway import openapi
from tests.integration.engines import World, world

LIMIT_S = 20
CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
    "fails_only_for_a_while",
)


def test_anyone_may_read_the_description(tmp_path: Path) -> None:
    async def inside() -> None:
        async with world(tmp_path) as w, w.session.get(f"{w.url}/openapi.json") as answer:
            assert answer.status == 200
            assert answer.content_type == "application/json"
            assert orjson.loads(await answer.read()) == openapi.document()

    asyncio.run(inside())


@pytest.mark.parametrize("fault", ["", "status"], ids=["engines answer", "engines fail"])
def test_no_request_that_it_allows_or_forbids_is_answered_otherwise(
    tmp_path: Path, fault: str
) -> None:
    pytest.importorskip("schemathesis", reason="install the `dev` extra for schemathesis")

    async def run(w: World) -> tuple[int, str]:
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "tests.integration.schemathesis_hooks",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{w.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {w.keys['open']}"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "20", "--max-time", str(LIMIT_S), "--request-timeout", "10"),
            *("--no-shrink", "--seed", "1", "--no-color", "--warnings", "off"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=tmp_path,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def inside() -> tuple[int, str]:
        async with world(tmp_path, home=fault, away=fault) as w:
            return await run(w)

    code, output = asyncio.run(inside())
    assert code == 0, output
    tested = re.search(r"Tested: (\d+)", output)
    assert tested is not None
    assert int(tested[1]) >= len(openapi.OPERATIONS) - 1, "it leaves out what it was loaded from"
