"""The leases endpoint of a Kubernetes API server: optimistic locking, and every way to fail."""

import asyncio
import json
from typing import Any

from aiohttp import web
from kubernetes.client import ApiClient, V1Lease
from kubernetes.client.exceptions import ApiException

PATH = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


class Refused(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class Leases:
    """What the server keeps. To write with another resourceVersion than its own is a conflict."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self._version = 0

    def read(self, name: str) -> dict[str, Any]:
        if name not in self.objects:
            raise Refused(404)
        return self.objects[name]

    def create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name in self.objects:
            raise Refused(409)
        return self._store(name, body)

    def replace(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        known = self.read(name)
        if body["metadata"].get("resourceVersion") != known["metadata"]["resourceVersion"]:
            raise Refused(409)
        return self._store(name, body)

    def _store(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        metadata = {**body["metadata"], "name": name, "resourceVersion": str(self._version)}
        self.objects[name] = {**body, "metadata": metadata}
        return self.objects[name]


class LeaseServer:
    """The same over HTTP, with faults."""

    def __init__(self) -> None:
        self.leases = Leases()
        self.fails_with = 0
        """A status that every request gets."""
        self.hangs = False
        self.loses_answers = False
        """Writes are done, and never answered."""
        self.requests: list[str] = []

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post(PATH, self._create)
        app.router.add_get(PATH + "/{name}", self._read)
        app.router.add_put(PATH + "/{name}", self._replace)
        return app

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        return await self._answer(
            request, lambda: self.leases.create(body["metadata"]["name"], body)
        )

    async def _read(self, request: web.Request) -> web.Response:
        return await self._answer(request, lambda: self.leases.read(request.match_info["name"]))

    async def _replace(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = request.match_info["name"]
        return await self._answer(request, lambda: self.leases.replace(name, body))

    async def _answer(self, request: web.Request, work: Any) -> web.Response:
        self.requests.append(request.method)
        if self.hangs:
            await asyncio.Event().wait()
        status = self.fails_with
        try:
            found = {} if status else work()
        except Refused as refused:
            status = refused.status
        if status:
            return web.json_response({"kind": "Status", "code": status}, status=status)
        if self.loses_answers and request.method != "GET":
            await asyncio.Event().wait()
        return web.json_response(found)


class LeaseApi:
    """The same as the Kubernetes client shows it, without a server."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._client = ApiClient()

    def read_namespaced_lease(self, name: str, **_: Any) -> V1Lease:
        return self._call(lambda: self._leases.read(name))

    def create_namespaced_lease(self, _: str, body: V1Lease, **__: Any) -> V1Lease:
        plain = self._client.sanitize_for_serialization(body)
        return self._call(lambda: self._leases.create(plain["metadata"]["name"], plain))

    def replace_namespaced_lease(self, name: str, body: V1Lease, **_: Any) -> V1Lease:
        plain = self._client.sanitize_for_serialization(body)
        return self._call(lambda: self._leases.replace(name, plain))

    def _call(self, work: Any) -> V1Lease:
        try:
            found = work()
        except Refused as refused:
            raise ApiException(status=refused.status) from None
        return self._client.deserialize(json.dumps(found), "V1Lease", "application/json")
