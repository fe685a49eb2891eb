"""The HTTP server of a gateway, on a socket of its own."""

import math
import resource
import socket
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import uvicorn

from orchestrator.gateway.app import Gateway
from orchestrator.gateway.connection import ClientConnection
from orchestrator.gateway.connections import ConnectionLimits, Connections

KEEP_ALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""A client that is lost is noticed after half a minute."""


def listen(url: str) -> socket.socket:
    """A bound socket that gateway replicas on one node share. Raises OSError."""
    parts = urlsplit(url)
    listener = socket.socket(socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Connections inherit it: a client whose machine or network is lost says nothing of it, and
        # while it waits for its answer nothing is sent that would find out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds_or_count in KEEP_ALIVE.items():
            listener.setsockopt(socket.IPPROTO_TCP, option, seconds_or_count)
        listener.bind((parts.hostname, 80 if parts.port is None else parts.port))
    except OSError:
        listener.close()
        raise
    return listener


def server(gateway: Gateway, limits: ConnectionLimits | None = None) -> uvicorn.Server:
    """Not yet running: `serve(sockets=[…])` runs it; `should_exit` ends it when its open answers
    are whole, or have had all the time that an answer may take."""
    connections = Connections(
        limits or ConnectionLimits(connections=_most_connections()),
        lambda: gateway.spec.timeouts.between_tokens_s,
        gateway.telemetry.refused_early,
    )
    return uvicorn.Server(
        uvicorn.Config(
            gateway,
            http=cast(type[ClientConnection], partial(ClientConnection, connections)),
            loop="uvloop",
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="error",
            log_config=None,
            proxy_headers=False,
            backlog=4096,
            timeout_graceful_shutdown=math.ceil(gateway.spec.timeouts.total_s),
        )
    )


def _most_connections() -> int:
    """Half of the files that the process may open: the rest is for endpoints and records."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * ConnectionLimits.connections
    if files < wanted:
        files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    return min(wanted, files) // 2
