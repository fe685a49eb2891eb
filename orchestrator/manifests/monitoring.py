"""What watches it: monitors and rules for Prometheus' operator, dashboards for Grafana."""

import json
from urllib.parse import urlsplit

from orchestrator.config.spec import Configuration
from orchestrator.manifests.alerts import groups
from orchestrator.manifests.dashboards import dashboards
from orchestrator.manifests.parts import CONTROLLER, GATEWAY, NODE_TYPE, PART_OF, Object, obj
from orchestrator.policy.candidate import Candidate
from orchestrator.pools.ray_service import labels

GROUP = "monitoring.coreos.com/v1"
INTERVAL = "15s"
SERVE_PORT = 8000


def of_control_plane(configuration: Configuration) -> list[Object]:
    return [
        _service_monitor("gateway", GATEWAY, "serve"),
        _service_monitor("controller", CONTROLLER, "http"),
        obj(GROUP, "PrometheusRule", "orchestrator", spec={"groups": groups(configuration)}),
    ]


def _service_monitor(name: str, chosen: dict[str, str], port: str) -> Object:
    return obj(
        GROUP,
        "ServiceMonitor",
        name,
        labels=chosen,
        spec={
            "selector": {"matchLabels": chosen},
            "endpoints": [{"port": port, "path": "/metrics", "interval": INTERVAL}],
        },
    )


def of_pool(candidate: Candidate) -> Object:
    """An engine shows its metrics below its endpoint's path."""
    path = f"{urlsplit(candidate.url).path}/metrics"
    return obj(
        GROUP,
        "PodMonitor",
        candidate.service_name,
        labels=PART_OF,
        spec={
            "selector": {"matchLabels": {**labels(candidate), NODE_TYPE: "worker"}},
            "podTargetLabels": [name for name in labels(candidate) if name.startswith("orch")],
            "podMetricsEndpoints": [{"portNumber": SERVE_PORT, "path": path, "interval": INTERVAL}],
        },
    )


def dashboard_maps() -> list[Object]:
    """Grafana's sidecar takes ConfigMaps with this label."""
    return [
        obj(
            "v1",
            "ConfigMap",
            f"dashboard-{name.removesuffix('.json')}",
            labels={**PART_OF, "grafana_dashboard": "1"},
            data={name: json.dumps(dashboard, indent=1) + "\n"},
        )
        for name, dashboard in dashboards().items()
    ]
