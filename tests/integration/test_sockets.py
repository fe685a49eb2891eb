"""Where the process connects to, by the interpreter's own account of every connect."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engines import world
from tests.integration.test_canary import FAULTS, HARMLESS, IBAN, ask, said

connected: list[tuple[str, int]] = []
listening = False


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if listening and event == "socket.connect" and isinstance(arguments[1], tuple):
        connected.append(arguments[1][:2])


sys.addaudithook(_note)


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_only_what_a_grant_names_is_connected_to(tmp_path: Path, fault: str) -> None:
    async def inside() -> None:
        global listening
        async with world(tmp_path, fault, total_s=2) as w:
            text = (tmp_path / "all.yaml").read_text()
            home, away = (port_of(text, name) for name in ("home", "away"))
            controller = 9
            gateway = int(w.url.rsplit(":", 1)[1])
            connected.clear()
            listening = True
            try:
                for stream in (True, False):
                    await ask(w, said(f"Pay to {IBAN}.") | {"stream": stream})
                assert {port for _, port in connected} <= {home, controller, gateway}
                assert home in {port for _, port in connected}
                await ask(w, said(HARMLESS))
                assert {port for _, port in connected} <= {home, away, controller, gateway}
            finally:
                listening = False

    asyncio.run(inside())


def port_of(configuration: str, cluster: str) -> int:
    line = next(x for x in configuration.splitlines() if f"name: {cluster}," in x)
    return int(line.split("http://127.0.0.1:")[1].split('"')[0])
