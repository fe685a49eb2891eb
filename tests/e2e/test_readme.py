"""The README's commands do what it says, on the running stack."""

import re
import subprocess

import pytest

from tests.e2e.conftest import ROOT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[b.split("\n")[0][:50] for b in BLOCKS])
def test_a_block_of_commands_succeeds(stack: Stack, block: str) -> None:
    keys = ROOT / "clusters" / "local" / "keys.yaml"
    before = keys.read_text()
    try:
        done = subprocess.run(
            ["bash", "-euc", block], cwd=ROOT, capture_output=True, text=True, check=False
        )
    finally:
        keys.write_text(before)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    if block.startswith("curl") and " -o " not in block:
        assert '"choices"' in done.stdout


def test_every_make_target_and_command_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)):
        assert f"\n{target}: " in makefile, target
    for command in set(re.findall(r"\.venv/bin/orchestrator ([a-z-]+)", README)):
        shown = subprocess.run(
            [ROOT / ".venv/bin/orchestrator", command, "--help"], capture_output=True, check=False
        )
        assert shown.returncode == 0, command
