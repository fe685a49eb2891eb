"""How callers prove who they are, and what they may do then: API keys, JWT issuers, limits."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from orchestrator.config.spec.base import HttpUrl, Name, Seconds, Spec

Endpoint = Literal[
    "chat",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "tokenize",
    "rerank",
    "score",
    "batches",
    "files",
    "models",
]
Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]
"""With a public key to verify: with HMAC, whoever can check a token can make one."""


class Scope(Spec):
    """What of its workload a caller may use."""

    models: Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None, description="among the workload's; none: all of them"
    )
    endpoints: Annotated[list[Endpoint], Field(min_length=1)] | None = Field(
        default=None, description="none: all of them"
    )


class Limits(Spec):
    """How much may be asked for in any 60 seconds, over all gateway replicas of a node."""

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="none: any number"
    )
    tokens_per_minute: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None,
        description="of prompts and answers: the most that a request may take is reserved when it "
        "comes, and what it did not take is given back when it ends; none: any number",
    )


class Key(Spec):
    """An API key. Only the hash of its secret is stored."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]{8}$")] = Field(
        description="its public part, for lists and logs"
    )
    workload: Name = Field(description="that it speaks for")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="of the whole key, in hexadecimal"
    )
    created_at: datetime = Field(description="with its time zone")
    expires_at: AwareDatetime | None = Field(default=None, description="none: never")
    scope: Scope = Field(default=Scope(), description="what it may be used for")
    limits: Limits = Field(default=Limits(), description="of its own, within the workload's")


class ClaimRule(Spec):
    """Which tokens speak for a workload."""

    claims: dict[str, str | int | bool] = Field(
        description="that the token must have, each as its value or as a member of a list; empty: "
        "every token of the issuer"
    )
    workload: Name = Field(description="that such a token speaks for")
    scope: Scope = Field(default=Scope(), description="what it may be used for")
    limits: Limits = Field(
        default=Limits(), description="of each subject for itself, within the workload's"
    )


class JwtIssuer(Spec):
    """An identity provider whose JWTs are taken. Where its keys are is said here, never by a token;
    give one of `jwks_url` and `jwks_file`."""

    issuer: Annotated[str, Field(min_length=1)] = Field(description="its tokens' `iss`, exactly")
    audience: Annotated[str, Field(min_length=1)] = Field(
        description="its tokens' `aud` must be or contain it"
    )
    jwks_url: HttpUrl | None = Field(
        default=None, description="of its public keys, by HTTPS; redirects are not followed"
    )
    jwks_file: str | None = Field(default=None, description="with its public keys, read again too")
    algorithms: list[Algorithm] = Field(
        default=["RS256", "ES256"], min_length=1, description="that its tokens may be signed by"
    )
    leeway_s: Annotated[float, Field(ge=0, le=300)] = Field(
        default=30, description="by which its clock may differ from ours"
    )
    refresh_s: Seconds = Field(default=300, description="from one look at its keys to the next")
    max_age_s: Seconds = Field(
        default=86400, description="for which keys hold that could not be looked at again"
    )
    workloads: list[ClaimRule] = Field(
        min_length=1, description="the first rule whose claims a token has decides; none: refused"
    )
