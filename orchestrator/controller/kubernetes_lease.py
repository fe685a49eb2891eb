"""The right to lead as a Kubernetes Lease: optimistic locking decides who gets it, and no clock is
compared with another machine's."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from orchestrator.controller.lease import clock_s

log = logging.getLogger("orchestrator.controller")

LEASE_S = 8
"""Others take over when the lease has not been renewed for so long, as they see it."""
ACT_S = 5
"""Its holder acts for so long after it began to renew it: whoever comes after starts later."""
PERIOD_S = 1.5
REQUEST_TIMEOUT_S = 1.5


Result = TypeVar("Result")


class KubernetesLease:
    period_s = PERIOD_S

    def __init__(
        self,
        api: Any,
        namespace: str,
        name: str,
        holder: str,
        clock: Callable[[], float] = clock_s,
    ) -> None:
        """`api`: a `CoordinationV1Api`; `holder`: this process."""
        self.holder = ""
        self._api = api
        self._where = {"namespace": namespace, "name": name}
        self._me = holder
        self._clock = clock
        self._act_until_s = float("-inf")
        self._seen_version = ""
        self._seen_s = 0.0
        """When the version that is there was first seen."""
        self._failure = ""
        # Its own thread: whatever else is slow, this is not late for it.
        self._thread = ThreadPoolExecutor(1, "lease")

    def held(self) -> bool:
        return self._clock() < self._act_until_s

    async def keep(self) -> None:
        began_s = self._clock()
        try:
            if await self._in_thread(self._take):
                self._act_until_s = began_s + ACT_S
            self._failure = ""
        except (ApiException, HTTPError, OSError) as error:
            # What was asked for may have been done: the next look tells.
            failure = f"{type(error).__name__} {getattr(error, 'status', '')}".strip()
            if failure != self._failure:
                log.warning("the lease %s cannot be kept: %s", self._where["name"], failure)
            self._failure = failure

    async def give_up(self) -> None:
        if not self.held():
            return
        self._act_until_s = float("-inf")
        try:
            await self._in_thread(self._clear)
        except (ApiException, HTTPError, OSError):
            log.warning("the lease is not given up; the next leader waits until it is over")

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _take(self) -> bool:
        """Whether the lease is ours by the server's word."""
        try:
            lease = self._api.read_namespaced_lease(
                **self._where, _request_timeout=REQUEST_TIMEOUT_S
            )
        except ApiException as error:
            if error.status != 404:
                raise
            return self._write(None)
        version, spec = lease.metadata.resource_version, lease.spec
        self.holder = (spec and spec.holder_identity) or ""
        if version != self._seen_version:
            self._seen_version, self._seen_s = version, self._clock()
        lasts_s = (spec and spec.lease_duration_seconds) or LEASE_S
        over = not self.holder or self._clock() - self._seen_s > lasts_s
        return (self.holder == self._me or over) and self._write(lease)

    def _write(self, before: Any) -> bool:
        """False when somebody else was faster."""
        now = datetime.now(UTC)
        spec = before.spec if before is not None else None
        ours = spec is not None and spec.holder_identity == self._me
        lease = client.V1Lease(
            metadata=before.metadata
            if before is not None
            else client.V1ObjectMeta(name=self._where["name"]),
            spec=client.V1LeaseSpec(
                holder_identity=self._me,
                lease_duration_seconds=LEASE_S,
                acquire_time=spec.acquire_time if spec is not None and ours else now,
                renew_time=now,
                lease_transitions=((spec and spec.lease_transitions) or 0) + (not ours),
            ),
        )
        try:
            if before is None:
                made = self._api.create_namespaced_lease(
                    self._where["namespace"], lease, _request_timeout=REQUEST_TIMEOUT_S
                )
            else:
                made = self._api.replace_namespaced_lease(
                    **self._where, body=lease, _request_timeout=REQUEST_TIMEOUT_S
                )
        except ApiException as error:
            if error.status == 409:
                return False
            raise
        self.holder = self._me
        self._seen_version, self._seen_s = made.metadata.resource_version, self._clock()
        return True

    def _clear(self) -> None:
        lease = self._api.read_namespaced_lease(**self._where, _request_timeout=REQUEST_TIMEOUT_S)
        if lease.spec is not None and lease.spec.holder_identity == self._me:
            lease.spec.holder_identity = ""
            self._api.replace_namespaced_lease(
                **self._where, body=lease, _request_timeout=REQUEST_TIMEOUT_S
            )


def connect(place: str, holder: str) -> KubernetesLease:
    """`place` is `namespace/name`, in the cluster that this process runs in, else in that of
    `KUBECONFIG`. Raises kubernetes.config.ConfigException."""
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        config.load_kube_config(client_configuration=settings)
    settings.retries = 0
    namespace, _, name = place.partition("/")
    api = client.CoordinationV1Api(client.ApiClient(settings))
    return KubernetesLease(api, namespace, name, holder)
