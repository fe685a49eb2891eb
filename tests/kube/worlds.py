"""Catalogues with pools in Kubernetes."""

from orchestrator.config.spec import Configuration
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue

KUBECONFIG_ENV = "ORCHESTRATOR_TEST_WORLD"
CLUSTER = "rented"


def candidates(namespace: str, **variants: list[str]) -> dict[str, Candidate]:
    """By endpoint; `variants` name their pools: by default `chat` on `gpu`."""
    runs = variants or {"chat": ["gpu"]}
    pools = sorted({pool for of in runs.values() for pool in of})
    catalogue = Catalogue(
        Configuration.model_validate(
            {
                "zones": [
                    {"name": "onprem", "jurisdiction": "DE", "max_data_class": "restricted"},
                    {"name": "cloud", "jurisdiction": "EU", "max_data_class": "internal"},
                ],
                "clusters": [
                    {
                        "name": "home",
                        "zone": "onprem",
                        "kind": "ray",
                        "url": "http://127.0.0.1:8001",
                        "dashboard_url": "http://127.0.0.1:8265",
                    },
                    {
                        "name": CLUSTER,
                        "zone": "cloud",
                        "kind": "kuberay",
                        "url": f"http://{{service}}-serve-svc.{namespace}.svc:8000",
                        "kubernetes": {
                            "namespace": namespace,
                            "image": "registry.example/orchestrator:1",
                            "kubeconfig_env": KUBECONFIG_ENV,
                        },
                    },
                ],
                "pools": [
                    {
                        "name": pool,
                        "cluster": CLUSTER,
                        "accelerator": "L40S",
                        "max_replicas": 8,
                        "provision_s": 300,
                        "price": {"fixed_usd_per_gpu_hour": 1},
                        "pod": {"node_labels": {"example.com/gpu": "l40s"}},
                    }
                    for pool in pools
                ],
                "models": [
                    {
                        "name": "assistant",
                        "variants": [
                            {
                                "name": name,
                                "weights": "/models/chat",
                                "max_model_len": 4096,
                                "max_num_seqs": 8,
                                "pools": of,
                            }
                            for name, of in runs.items()
                        ],
                    }
                ],
                "workloads": [
                    {
                        "name": "wiki",
                        "data_class": "internal",
                        "models": ["assistant"],
                        "allowed_zones": ["onprem", "cloud"],
                        "slo": {"ttft_p95_s": 5},
                    }
                ],
                "gateway": {"url": "http://127.0.0.1:8000", "cluster": "home"},
                "controller": {"url": "http://127.0.0.1:8100"},
            }
        ),
        "v1",
    )
    return dict(catalogue.candidates)
