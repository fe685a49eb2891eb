"""The public keys of token issuers, from where the configuration says, and from nowhere else."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import orjson

from orchestrator.config.spec import JwtIssuer

log = logging.getLogger("orchestrator.gateway")

FETCH_TIMEOUT_S = 5
RETRY_S = 10
"""From one look at the keys to the next, whatever unknown keys tokens name meanwhile."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 100

FITTING: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
    "Ed448": ("EdDSA",),
}
"""Algorithms by the type of an RSA key, by the curve of another."""
PUBLIC = ("kty", "crv", "n", "e", "x", "y")
"""What is taken of a key: nothing private, and no place where more of it is."""

KeyName = tuple[str, str]
"""The `kid`, and an algorithm that the key is for."""


@dataclass(frozen=True, slots=True, eq=False)
class PublicKey:
    published: Mapping[str, Any]
    verifier: jwt.PyJWK


class KeySet:
    """The keys of one issuer. Those that were had last hold until others come, or for as long as
    the configuration says."""

    def __init__(self, issuer: JwtIssuer) -> None:
        self.issuer = issuer
        """May be replaced by one with its keys in the same place."""
        self._keys: dict[KeyName, PublicKey] = {}
        self._had_s = 0.0
        self._asked_s = -RETRY_S - 1.0
        self._failed = True
        self._looking: asyncio.Task[None] | None = None

    def has_place_of(self, issuer: JwtIssuer) -> bool:
        ours = self.issuer
        return (ours.jwks_url, ours.jwks_file) == (issuer.jwks_url, issuer.jwks_file)

    def key(self, name: KeyName) -> PublicKey | None:
        """The same object for as long as the issuer publishes the same key."""
        if time.monotonic() - self._had_s > self.issuer.max_age_s:
            return None
        return self._keys.get(name)

    def renew_when_due(self) -> None:
        wait_s = RETRY_S if self._failed else max(self.issuer.refresh_s, RETRY_S)
        if time.monotonic() - self._asked_s >= wait_s:
            self._look()

    async def look_again(self) -> None:
        """For a key that is not known. Returns at once when that was asked a moment ago."""
        if self._looking is None and time.monotonic() - self._asked_s >= RETRY_S:
            self._look()
        if self._looking is not None:
            # Others may wait for it too: a client that leaves must not end it.
            await asyncio.shield(self._looking)

    def _look(self) -> None:
        if self._looking is None:
            self._asked_s = time.monotonic()
            self._looking = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        try:
            content = await _content(self.issuer)
            self._keys = await asyncio.to_thread(_keys, content, self._keys)
            self._had_s = time.monotonic()
            self._failed = False
        except Exception as error:
            # Whatever it was: the keys that are there hold, and a request may be waiting.
            self._failed = True
            kind = type(error).__name__
            log.warning("no keys from token issuer %s: %s", self.issuer.issuer, kind)
        finally:
            self._looking = None


async def _content(issuer: JwtIssuer) -> bytes:
    """Raises ValueError, or what reading raises."""
    if issuer.jwks_url is None:
        return await asyncio.to_thread(_read, Path(issuer.jwks_file or ""))
    content = b""
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"accept": "application/json", "accept-encoding": "identity"},
        ) as session,
        session.get(issuer.jwks_url, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise ValueError("not 200")
        async for part in response.content.iter_any():
            content += part
            _check_size(content)
    return content


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    _check_size(content)
    return content


def _check_size(content: bytes) -> None:
    if len(content) > MAX_BYTES:
        raise ValueError("too large")


def _keys(content: bytes, before: Mapping[KeyName, PublicKey]) -> dict[KeyName, PublicKey]:
    """By name, from a JSON Web Key Set (RFC 7517). Keys that are not to verify with are left out.
    Raises ValueError for what is no such set."""
    document = orjson.loads(content)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no key set")
    found: dict[KeyName, PublicKey] = {}
    for entry in listed[:MAX_KEYS]:
        if not isinstance(entry, dict) or not _is_to_verify(entry):
            continue
        public = {name: entry[name] for name in PUBLIC if name in entry}
        for algorithm in _algorithms(entry):
            name = (entry["kid"], algorithm)
            old = before.get(name)
            if old is not None and old.published == public:
                found.setdefault(name, old)
                continue
            try:
                found.setdefault(name, PublicKey(public, jwt.PyJWK(public, algorithm)))
            except Exception:
                # Of a kind that is not known here, or broken: the others are keys all the same.
                break
    return found


def _is_to_verify(entry: dict[str, Any]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    return (
        isinstance(entry.get("kid"), str)
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _algorithms(entry: dict[str, Any]) -> tuple[str, ...]:
    kind = entry.get("kty") if entry.get("kty") == "RSA" else entry.get("crv")
    fitting = FITTING.get(kind, ()) if isinstance(kind, str) else ()
    only = entry.get("alg")
    return fitting if only is None else tuple(a for a in fitting if a == only)
