"""What is sent to, for a grant."""

import asyncio
import shutil
from pathlib import Path

from orchestrator.config.load import load
from orchestrator.config.probes import Fleet
from orchestrator.config.spec import Timeouts
from orchestrator.gateway.upstream import Upstreams
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant
from orchestrator.policy.situation import imagine
from orchestrator.policy.view import View

LOCAL = Path(__file__).parents[2] / "clusters" / "local"


def a_grant(directory: Path) -> Grant:
    loaded = load(directory)
    catalogue = Catalogue(loaded.configuration, loaded.version)
    snapshot = imagine(catalogue, Fleet(situation="all_ready"), "assistant")
    decision = decide(Facts("assistant", "tiny"), View(catalogue, snapshot, "a-gateway"))
    assert decision.grant is not None
    return decision.grant


def test_an_endpoint_that_moves_is_asked_where_it_is_now(tmp_path: Path) -> None:
    """A cluster of Ray that is started here: nothing in its configuration is in the way."""
    directory = shutil.copytree(LOCAL, tmp_path / "local")
    clusters = directory / "clusters.yaml"
    before = clusters.read_text()
    asked: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"{}")
            asked.append(writer.get_extra_info("sockname")[1])
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def inside() -> list[int]:
        ports = []
        async with Upstreams(Timeouts()) as upstreams:
            for _ in range(2):
                server = await asyncio.start_server(answer, "127.0.0.1", 0)
                port = server.sockets[0].getsockname()[1]
                ports.append(port)
                clusters.write_text(before.replace("127.0.0.1:8001", f"127.0.0.1:{port}"))
                grant = a_grant(directory)
                for _ in range(2):
                    response = await upstreams.send(grant, "/v1/completions", b"{}", "id", 5)
                    assert await response.body(5) == b""
                    response.close()
        return [port for port in ports for _ in range(2)]

    assert asyncio.run(inside()) == asked
