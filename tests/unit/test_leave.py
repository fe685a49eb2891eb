"""A pod is stopped when its gateways have no request open."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from orchestrator.gateway.leave import QUIET, wait

BUSY = """\
orchestrator_open_requests{gateway="a"} 0
orchestrator_open_requests{gateway="b"} 2
orchestrator_queue_length{workload="w",priority="50",gateway="a"} 7
"""
QUIET_PAGE = BUSY.replace('"b"} 2', '"b"} 0')


@contextmanager
def gateways(pages: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Shows these pages, the last one for good. Gives its URL, and what it has shown."""
    shown: list[str] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(pages[min(len(shown), len(pages) - 1)])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(shown[-1].encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics", shown
        finally:
            server.shutdown()
            thread.join()


def test_it_waits_for_every_gateway_and_looks_again() -> None:
    with gateways([BUSY, QUIET_PAGE, BUSY, QUIET_PAGE]) as (url, shown):
        assert wait(url, 60, pause_s=0)
    assert shown == [BUSY, QUIET_PAGE, BUSY] + [QUIET_PAGE] * QUIET


def test_it_waits_no_longer_than_it_may() -> None:
    with gateways([BUSY]) as (url, _):
        assert not wait(url, 0.05, pause_s=0.01)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/metrics"])
def test_a_gateway_that_is_gone_has_nothing_open(url: str) -> None:
    assert wait(url, 60, pause_s=0)
