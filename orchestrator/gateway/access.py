"""Who is calling: an API key or a token, in either of the two headers that clients send it in."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from orchestrator.config.keys import match
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.jwks import KeySet
from orchestrator.gateway.jwt import TokenRefused, Tokens
from orchestrator.gateway.rules import Rules

log = logging.getLogger("orchestrator.gateway")

LOOK_S = 1
"""From one look at which issuers' keys are due to the next."""


class Access:
    """By the rules in force and the keys of this moment."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._key_sets: dict[str, KeySet] = {}
        self._follow(exchange.rules)

    async def run(self) -> None:
        """Keeps the issuers' keys fresh until cancelled."""
        while True:
            if self._rules is not self._exchange.rules:
                self._follow(self._exchange.rules)
            for key_set in self._key_sets.values():
                key_set.renew_when_due()
            await asyncio.sleep(LOOK_S)

    async def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Raises ApiError 401, which says nothing of what is wrong with a credential.

        A key of a workload that is not known, or not any more, opens nothing.
        """
        credential = self._presented(headers)
        try:
            return self._checked(
                await self._tokens.caller(credential)
                if _is_token(credential)
                else self._holder(credential)
            )
        except TokenRefused as why:
            raise _token_refused(why) from None

    def again(self, headers: Mapping[bytes, bytes]) -> Caller:
        """The same for one whose request waited, by what is at hand: no issuer is asked. Raises
        ApiError 401."""
        credential = self._presented(headers)
        try:
            return self._checked(
                self._tokens.known(credential)
                if _is_token(credential)
                else self._holder(credential)
            )
        except TokenRefused as why:
            raise _token_refused(why) from None

    def _presented(self, headers: Mapping[bytes, bytes]) -> str:
        if self._rules is not self._exchange.rules:
            self._follow(self._exchange.rules)
        return credential_of(headers)

    def _checked(self, caller: Caller | None) -> Caller:
        if caller is None or caller.workload not in self._exchange.catalogue.workloads:
            raise refused()
        return caller

    def _holder(self, presented: str) -> Caller | None:
        key = match(self._exchange.keys, presented, datetime.now(UTC))
        return None if key is None else Caller(key.id, key.workload, key.scope, key.limits)

    def _follow(self, rules: Rules) -> None:
        """An issuer whose keys are where they were goes on with those that it has."""
        before, self._key_sets = self._key_sets, {}
        for issuer in rules.catalogue.configuration.gateway.jwt:
            kept = before.get(issuer.issuer)
            if kept is None or not kept.has_place_of(issuer):
                kept = KeySet(issuer)
            kept.issuer = issuer
            self._key_sets[issuer.issuer] = kept
        self._tokens = Tokens(self._key_sets)
        self._rules = rules


def credential_of(headers: Mapping[bytes, bytes]) -> str:
    """Raises ApiError 401 where there is none, or two that differ."""
    authorization, api_key = headers.get(b"authorization"), headers.get(b"x-api-key")
    presented = None if api_key is None else api_key.strip()
    if authorization is not None:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or presented not in (None, token.strip()):
            raise refused()
        presented = token.strip()
    if presented is None:
        raise ApiError(
            401,
            "missing_api_key",
            "Give an API key or a token as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'.",
            "authentication_error",
        )
    return presented.decode("latin-1")


def _is_token(credential: str) -> bool:
    return credential.count(".") == 2


def _token_refused(why: TokenRefused) -> ApiError:
    log.debug("a token was refused: %s", why)
    return refused()


def refused() -> ApiError:
    return ApiError(
        401, "invalid_api_key", "The API key or token is wrong or expired.", "authentication_error"
    )
