"""JSON Web Tokens: whose they are, by the issuers and the rules of the configuration."""

import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import orjson

from orchestrator.config.spec import ClaimRule
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.jwks import KeyName, KeySet, PublicKey

MAX_VERIFIED = 10_000
"""Tokens that are remembered as verified."""
REQUIRED = ["iss", "aud", "sub", "exp"]


class TokenRefused(Exception):
    """Why, in a fixed few words: for whoever sets an issuer up, and never for the client."""


class KeyUnknown(TokenRefused):
    """Its issuer may publish the key by now."""

    def __init__(self, key_set: KeySet) -> None:
        super().__init__("its key is not known")
        self.key_set = key_set


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    key_set: KeySet
    key_name: KeyName
    key: PublicKey
    ends_s: float
    """Of the wall clock."""

    def holds(self) -> bool:
        return time.time() < self.ends_s and self.key_set.key(self.key_name) is self.key


@dataclass(frozen=True, slots=True)
class _Said:
    """What an unverified token says of how to verify it."""

    issuer: str
    key_name: KeyName


class Tokens:
    """Those of one version of the rules: the next has a memory of its own."""

    def __init__(self, key_sets: Mapping[str, KeySet]) -> None:
        """`key_sets` by issuer."""
        self._key_sets = key_sets
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    async def caller(self, token: str) -> Caller:
        """Who presents the token. Raises TokenRefused, whatever is wrong with it."""
        try:
            return self.known(token)
        except KeyUnknown as unknown:
            await unknown.key_set.look_again()
        return self.known(token)

    def known(self, token: str) -> Caller:
        """The same by the keys at hand, without asking an issuer."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None:
            if known.holds():
                self._verified.move_to_end(digest)
                return known.caller
            del self._verified[digest]
        verified = self._verified[digest] = self._verify(token)
        if len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)
        return verified.caller

    def _verify(self, token: str) -> _Verified:
        said = _said(token)
        key_set = self._key_sets.get(said.issuer)
        if key_set is None:
            raise TokenRefused("its issuer is not configured")
        if said.key_name[1] not in key_set.issuer.algorithms:
            raise TokenRefused("its algorithm is not allowed")
        key = key_set.key(said.key_name)
        if key is None:
            raise KeyUnknown(key_set)
        return _verify(token, said, key_set, key)


def _said(token: str) -> _Said:
    parts = token.split(".")
    try:
        header, claims = (
            orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
            for part in parts[:2]
        )
        said = claims["iss"], header["kid"], header["alg"]
    except (ValueError, KeyError, TypeError):
        raise TokenRefused("it is no token with iss, kid and alg") from None
    if not all(isinstance(value, str) for value in said):
        raise TokenRefused("its iss, kid and alg are no texts")
    return _Said(said[0], said[1:])


def _verify(token: str, said: _Said, key_set: KeySet, key: PublicKey) -> _Verified:
    issuer = key_set.issuer
    try:
        claims = jwt.decode(
            token,
            key.verifier,
            algorithms=issuer.algorithms,
            audience=issuer.audience,
            issuer=issuer.issuer,
            leeway=issuer.leeway_s,
            options={"require": REQUIRED, "enforce_minimum_key_length": True},
        )
        ends_s = float(claims["exp"]) + issuer.leeway_s
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
        raise TokenRefused(type(error).__name__) from None
    rule = next((rule for rule in issuer.workloads if has_claims(claims, rule)), None)
    if rule is None or not claims["sub"]:
        raise TokenRefused("no rule has its claims")
    subject = hashlib.sha256(f"{issuer.issuer}\0{claims['sub']}".encode()).hexdigest()[:16]
    caller = Caller(f"jwt:{subject}", rule.workload, rule.scope, rule.limits)
    return _Verified(caller, key_set, said.key_name, key, ends_s)


def has_claims(claims: Mapping[str, Any], rule: ClaimRule) -> bool:
    """All that the rule asks for, each as the claim's value or as a member of its list."""
    return all(_is_in(wanted, claims.get(name)) for name, wanted in rule.claims.items())


def _is_in(wanted: str | int | bool, found: object) -> bool:
    values = found if isinstance(found, list) else [found]
    # To Python true is 1.
    return any(type(value) is type(wanted) and value == wanted for value in values)
