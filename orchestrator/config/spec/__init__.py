"""The configuration language: what a platform team writes in YAML.

Every model refuses unknown fields. Units are part of the field names. Cross-references are
checked in `orchestrator.config.references`, after loading, where file and line are known.
"""

from typing import Annotated, Any

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from orchestrator.config.spec.base import DataClassLabel, Name, Spec
from orchestrator.config.spec.models import Model, Performance, Variant
from orchestrator.config.spec.places import (
    Cluster,
    Pool,
    Price,
    PriceFeed,
    RayLaunch,
    TokenPrice,
    Zone,
)
from orchestrator.config.spec.settings import Controller, Gateway, Policy, Timeouts, Weights
from orchestrator.config.spec.workload import (
    Budget,
    Burst,
    Key,
    PriceCeiling,
    Schedule,
    Slo,
    WhenInfeasible,
    Workload,
)

__all__ = [
    "Budget",
    "Burst",
    "Cluster",
    "Configuration",
    "Controller",
    "DataClassLabel",
    "Gateway",
    "Key",
    "Model",
    "Name",
    "Performance",
    "Policy",
    "Pool",
    "Price",
    "PriceCeiling",
    "PriceFeed",
    "Profile",
    "RayLaunch",
    "Schedule",
    "Slo",
    "Spec",
    "Timeouts",
    "TokenPrice",
    "Variant",
    "Weights",
    "WhenInfeasible",
    "Workload",
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
    name=(Name, ...),
    inherits=(Name | None, Field(default=None, description="another profile")),
    **{
        name: _optional(field)
        for name, field in Workload.model_fields.items()
        if name not in ("name", "inherits")
    },
)


class Configuration(Spec):
    """The whole of a configuration directory."""

    zones: list[Zone] = Field(min_length=1)
    clusters: list[Cluster] = Field(min_length=1)
    pools: list[Pool] = Field(min_length=1)
    models: list[Model] = Field(min_length=1)
    profiles: list[Profile] = Field(default=[])
    workloads: list[Workload] = Field(min_length=1)
    price_feeds: list[PriceFeed] = Field(default=[])
    keys: list[Key] = Field(default=[])
    policy: Policy = Policy()
    gateway: Gateway
    controller: Controller
