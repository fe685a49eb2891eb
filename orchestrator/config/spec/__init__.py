"""The configuration language: what a platform team writes in YAML.

Every model refuses unknown fields. Units are part of the field names. Cross-references are
checked in `orchestrator.config.references`, after loading, where file and line are known.
"""

from typing import Annotated, Any

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from orchestrator.config.spec.access import ClaimRule, Endpoint, JwtIssuer, Key, Limits, Scope
from orchestrator.config.spec.base import DataClassLabel, Name, Spec
from orchestrator.config.spec.classifier import ClassifierSpec
from orchestrator.config.spec.models import Model, Performance, Variant
from orchestrator.config.spec.places import (
    Cluster,
    Kubernetes,
    Pod,
    Pool,
    RayLaunch,
    Zone,
)
from orchestrator.config.spec.prices import (
    Carbon,
    HttpSource,
    OnPremPrice,
    Plausible,
    Price,
    PriceFeed,
    PrometheusSource,
    Tariff,
    TokenPrice,
    Unit,
)
from orchestrator.config.spec.settings import (
    Batches,
    Controller,
    Gateway,
    Policy,
    Timeouts,
    Weights,
)
from orchestrator.config.spec.workload import (
    Batch,
    Budget,
    Burst,
    Hedge,
    PriceCeiling,
    Schedule,
    Slo,
    WhenInfeasible,
    Workload,
)
from orchestrator.config.spec.zombies import Zombies

__all__ = [
    "Batch",
    "Batches",
    "Budget",
    "Burst",
    "Carbon",
    "ClaimRule",
    "ClassifierSpec",
    "Cluster",
    "Configuration",
    "Controller",
    "DataClassLabel",
    "Endpoint",
    "Gateway",
    "Hedge",
    "HttpSource",
    "JwtIssuer",
    "Key",
    "Kubernetes",
    "Limits",
    "Model",
    "Name",
    "OnPremPrice",
    "Performance",
    "Plausible",
    "Pod",
    "Policy",
    "Pool",
    "Price",
    "PriceCeiling",
    "PriceFeed",
    "Profile",
    "PrometheusSource",
    "RayLaunch",
    "Schedule",
    "Scope",
    "Slo",
    "Spec",
    "Tariff",
    "Timeouts",
    "TokenPrice",
    "Unit",
    "Variant",
    "Weights",
    "WhenInfeasible",
    "Workload",
    "Zombies",
    "Zone",
]


def _optional(field: FieldInfo) -> Any:
    annotated: Any = Annotated
    # It takes one annotation at least; None is one without meaning.
    checked = annotated[(field.annotation, *field.metadata, None)]
    return checked | None, Field(default=None, description=field.description)


Profile = create_model(
    "Profile",
    __base__=Spec,
    __doc__="Fields of a workload, under a name, for workloads and profiles to inherit. A field "
    "that the heir sets itself replaces this one whole.",
    name=(Name, Field(description="how heirs refer to it")),
    inherits=(Name | None, Field(default=None, description="another profile")),
    **{
        name: _optional(field)
        for name, field in Workload.model_fields.items()
        if name not in ("name", "inherits")
    },
)


class Configuration(Spec):
    """The whole of a configuration directory."""

    zones: list[Zone] = Field(min_length=1, description="trust boundaries")
    clusters: list[Cluster] = Field(min_length=1, description="what stands in them")
    pools: list[Pool] = Field(min_length=1, description="accelerators of the clusters")
    models: list[Model] = Field(min_length=1, description="what can be asked for")
    profiles: list[Profile] = Field(default=[], description="what workloads have in common")
    workloads: list[Workload] = Field(min_length=1, description="who may ask, and on what terms")
    price_feeds: list[PriceFeed] = Field(default=[], description="prices that change")
    keys: list[Key] = Field(
        default=[],
        description="written by `orchestrator keys` into keys.yaml, and read there alone",
    )
    policy: Policy = Field(default=Policy(), description="what holds for every workload")
    gateway: Gateway = Field(description="the endpoint")
    controller: Controller = Field(description="what scales the pools")
    zombies: Zombies = Field(
        default=Zombies(), description="what is paid for and does nothing, and what becomes of it"
    )
