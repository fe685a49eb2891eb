"""What all specs share: the strict base, and the types of their fields."""

from ipaddress import ip_network
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from orchestrator.config.data_class import DataClass

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(:\d+)?(/[^\s?#]*)?$")]
Seconds = Annotated[float, Field(gt=0)]
Usd = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Jurisdiction = Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
Certification = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,62}$")]


def _cidr(value: str) -> str:
    ip_network(value)
    return value


Cidr = Annotated[str, AfterValidator(_cidr)]


def _data_class(value: object) -> object:
    return DataClass.parse(value) if isinstance(value, str) else value


DataClassLabel = Annotated[
    DataClass,
    BeforeValidator(_data_class, json_schema_input_type=str),
    PlainSerializer(lambda c: c.label, return_type=str),
]


def _known_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(f"unknown timezone '{name}'; write one such as Europe/Berlin") from None
    return name


Timezone = Annotated[str, AfterValidator(_known_timezone)]


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
