"""An API server of Kubernetes, asked for plain JSON by threads that wait no longer than allowed.

The client's own models would parse every field of every pod; few are needed. They take a second
and 50 MB to import, so only who has such a cluster imports them.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import urllib3

from orchestrator.config.spec import Kubernetes
from orchestrator.pools.actuator import PoolError

CONNECT_S = 3
READ_S = 10
"""Without a byte."""
ANSWER_S = 30
"""For a whole answer, however it comes."""
WATCH_S = 5
"""The server ends a watch after so long; going on proves that it is there."""
APPLY = "application/apply-patch+yaml"


class Unheard(PoolError):
    """No whole answer came; what was asked may have been done."""


class ApiError(PoolError):
    """What the server refused."""

    def __init__(self, asked: str, status: int, body: bytes, retry_after_s: float = 0) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        try:
            self.answer: dict[str, Any] = dict(json.loads(body))
        except (ValueError, TypeError):
            self.answer = {}
        super().__init__(f"{asked}: {status}", str(self.answer.get("message", ""))[:500])


class KubernetesApi:
    """One server, as one user. Every method blocks, and raises PoolError."""

    def __init__(self, access: Kubernetes) -> None:
        self._access = access
        self._client: Any = None
        self._making = threading.Lock()

    def list(self, path: str, selector: str = "") -> tuple[list[dict[str, Any]], str]:
        """All objects, and the version that they are of."""
        query = {"limit": "500"} | ({"labelSelector": selector} if selector else {})
        items: list[dict[str, Any]] = []
        while True:
            page = self.request("GET", path, query)
            items += page.get("items") or []
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return items, metadata["resourceVersion"]
            query["continue"] = metadata["continue"]

    def watch(self, path: str, selector: str, version: str) -> Iterator[dict[str, Any] | None]:
        """What has changed since a version, for WATCH_S; None first, when the server agrees."""
        query = {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
            "allowWatchBookmarks": "true",
        }
        if selector:
            query["labelSelector"] = selector
        with self._open("GET", path, query, None, None, WATCH_S + READ_S) as response:
            yield None
            rest = b""
            for chunk in _chunks(response, f"watch {path}"):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _parsed(line, f"watch {path}")

    def apply(self, path: str, body: dict[str, Any], manager: str) -> dict[str, Any]:
        """Server-side apply: sets the fields of `body`, makes what is not there, and takes no
        field from another manager."""
        return self.request("PATCH", path, {"fieldManager": manager}, body, APPLY)

    def delete(self, path: str, uid: str) -> None:
        """The object of this uid with all that belongs to it; it may be gone already."""
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        try:
            self.request("DELETE", path, None, body)
        except ApiError as error:
            if error.status != 404:
                raise

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        asked = f"{method} {path}"
        with self._open(method, path, query, body, content_type, READ_S) as response:
            deadline_s = time.monotonic() + ANSWER_S
            parts = []
            for chunk in _chunks(response, asked):
                parts.append(chunk)
                if time.monotonic() > deadline_s:
                    raise Unheard(f"{asked}: no whole answer in {ANSWER_S} s")
            return _parsed(b"".join(parts), asked)

    def close(self) -> None:
        """Connections in use end with what uses them."""
        if self._client is not None:
            self._client.close()

    def _open(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: dict[str, Any] | None,
        content_type: str | None,
        read_s: float,
    ) -> "_Open":
        from kubernetes.client.exceptions import ApiException

        connected = self._connected()
        headers = {"accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        try:
            verb, url, headers, body, _ = connected.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = connected.call_api(
                verb, url, headers, body, _request_timeout=(CONNECT_S, read_s)
            )
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise Unheard(f"{method} {path}: {type(error).__name__}") from None
        return _Open(answer.response, f"{method} {path}")

    def _connected(self) -> Any:
        with self._making:
            if self._client is None:
                self._client = _client(self._access)
            return self._client


class _Open:
    """An answer of which the head is read. A refusal is raised on entry."""

    def __init__(self, response: urllib3.HTTPResponse, asked: str) -> None:
        self._response = response
        self._asked = asked

    def __enter__(self) -> urllib3.HTTPResponse:
        if self._response.status < 400:
            return self._response
        body = b"".join(_chunks(self._response, self._asked))
        self.__exit__()
        after = self._response.headers.get("retry-after", "")
        raise ApiError(
            self._asked, self._response.status, body, float(after) if after.isdigit() else 0
        )

    def __exit__(self, *_: object) -> None:
        # One that is not read to its end leaves a connection that nobody can use again.
        self._response.close()
        self._response.release_conn()


def _chunks(response: urllib3.HTTPResponse, asked: str) -> Iterator[bytes]:
    try:
        yield from response.stream(65536)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unheard(f"{asked}: {type(error).__name__}") from None


def _parsed(text: bytes, asked: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise Unheard(f"{asked}: not an object of JSON") from None


def _client(access: Kubernetes) -> Any:
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    settings = client.Configuration()
    try:
        if access.kubeconfig_env is None:
            config.load_incluster_config(client_configuration=settings)
        else:
            path = os.environ.get(access.kubeconfig_env, "")
            if not path:
                raise PoolError(f"set {access.kubeconfig_env} to the path of a kubeconfig")
            config.load_kube_config(path, access.context, settings, persist_config=False)
    except (ConfigException, OSError, ValueError) as error:
        raise PoolError(f"no way to the cluster: {type(error).__name__}") from None
    settings.retries = False
    settings.keep_alive = True
    settings.connection_pool_maxsize = 16
    return client.ApiClient(settings)
