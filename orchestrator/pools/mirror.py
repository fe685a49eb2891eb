"""A copy of one kind of Kubernetes objects, kept by list and watch in a thread of its own."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from orchestrator.pools.actuator import PoolError
from orchestrator.pools.kubernetes_api import ApiError, KubernetesApi
from orchestrator.safe_log import without_text

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
LONGEST_ASKED_PAUSE_S = 30.0
"""A server that asks for more is asked again all the same."""
GONE = 410

log = logging.getLogger("orchestrator.pools")

T = TypeVar("T")


class Mirror(Generic[T]):
    """The objects under a path that bear a label, each reduced to what `read` takes from it.

    A watch that breaks is resumed at the version it had reached; a server that has forgotten that
    version is listed anew. Whoever reads asks `age_s` how long the server has not been heard.
    """

    def __init__(
        self, api: KubernetesApi, path: str, selector: str, read: Callable[[dict[str, Any]], T]
    ) -> None:
        self._api = api
        self._path = path
        self._selector = selector
        self._read = read
        self._objects: dict[str, T] = {}
        self._changing = threading.Lock()
        self._version: str | None = None
        """That the copy has reached; None: it has to be listed."""
        self._heard_s: float | None = None
        self._stopped = threading.Event()
        self.listed = threading.Event()
        self.lists = 0
        """How often everything was listed."""
        self.trouble = ""
        """Why the server was not heard the last time, empty while it is."""
        self._thread = threading.Thread(target=self._run, name=f"mirror {path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, after what it waits for."""
        self._stopped.set()

    def objects(self) -> list[T]:
        with self._changing:
            return list(self._objects.values())

    def age_s(self) -> float:
        """Seconds since the server was last heard; infinite before the first list."""
        return float("inf") if self._heard_s is None else time.monotonic() - self._heard_s

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopped.is_set():
            try:
                if self._version is None:
                    self._list()
                self._watch(self._version or "")
                pause_s = FIRST_PAUSE_S
            except PoolError as error:
                if isinstance(error, ApiError) and error.status == GONE:
                    self._version = None
                self.trouble = error.summary
                asked_s = error.retry_after_s if isinstance(error, ApiError) else 0
                longest_s = max(pause_s, min(asked_s, LONGEST_ASKED_PAUSE_S))
                # Controllers that lost the same server do not all come back at once.
                self._stopped.wait(longest_s * random.uniform(0.7, 1.3))
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            except Exception as error:
                log.error("%s: an object cannot be read: %s", self._path, without_text(error))
                self.trouble = f"{self._path}: an object cannot be read"
                self._version = None
                self._stopped.wait(LONGEST_PAUSE_S)

    def _list(self) -> None:
        items, version = self._api.list(self._path, self._selector)
        objects = {_key(item): self._read(item) for item in items}
        with self._changing:
            self._objects = objects
        self._version = version
        self.lists += 1
        self._hear()
        self.listed.set()

    def _watch(self, version: str) -> None:
        for event in self._api.watch(self._path, self._selector, version):
            if event is not None:
                self._take(event)
            self._hear()
            if self._stopped.is_set():
                return
        self._hear()

    def _take(self, event: dict[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            self._version = None
            raise PoolError(f"watch {self._path}: {item.get('code')}: {item.get('reason')}")
        if kind in ("ADDED", "MODIFIED"):
            taken = self._read(item)
            with self._changing:
                self._objects[_key(item)] = taken
        elif kind == "DELETED":
            with self._changing:
                self._objects.pop(_key(item), None)
        self._version = item["metadata"]["resourceVersion"]

    def _hear(self) -> None:
        self._heard_s = time.monotonic()
        self.trouble = ""


def _key(item: dict[str, Any]) -> str:
    return str(item["metadata"]["name"])
