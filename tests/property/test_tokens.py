"""Whatever is presented as a credential, the answer is a caller or 401, and a caller only for what
was signed."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gateway.access import credential_of
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.jwks import KeySet
from orchestrator.gateway.jwt import TokenRefused, Tokens
from tests.tokens import ISSUER, SigningKey, claims_of, issuer_with_file

KEY = SigningKey("k1")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["ES256", "HS256", "none", "RS256"]) | values,
        "kid": st.sampled_from(["k1", "k2"]) | values,
        "crit": values,
        "b64": values,
        "typ": values,
        "jwk": values,
        "jku": values,
    },
)
NAMES = ("iss", "aud", "sub", "exp", "nbf", "iat", "jti", "groups", "azp")
odd_claims = st.dictionaries(st.sampled_from(NAMES), values)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    directory: Path = tmp_path_factory.mktemp("keys")
    made = Tokens({ISSUER: KeySet(issuer_with_file(directory, KEY))})
    assert is_taken(made, KEY.token())
    return made


def is_taken(tokens: Tokens, token: str) -> bool:
    try:
        asyncio.run(tokens.caller(token))
    except TokenRefused:
        return False
    return True


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=255)))
def test_text_is_no_token(tokens: Tokens, text: str) -> None:
    assert not is_taken(tokens, text)


@settings(max_examples=300, deadline=None)
@given(headers, odd_claims, st.binary(max_size=80))
def test_what_nobody_signed_is_refused(
    tokens: Tokens, header: dict[str, Any], claims: dict[str, Any], signature: bytes
) -> None:
    parts = [json.dumps(header).encode(), json.dumps(claims_of(**claims)).encode(), signature]
    assert not is_taken(tokens, ".".join(map(encoded, parts)))


@settings(max_examples=300, deadline=None)
@given(odd_claims)
def test_what_the_issuer_signed_with_odd_claims_is_taken_or_refused(
    tokens: Tokens, claims: dict[str, Any]
) -> None:
    token = KEY.token(**claims)
    if is_taken(tokens, token):
        said = claims_of(**claims)
        assert said["iss"] == ISSUER
        assert "inference" in said["aud"]
        assert said["sub"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_token_with_one_character_changed_is_refused(tokens: Tokens, data: st.DataObject) -> None:
    token = KEY.token()
    # The last character of a part has bits that mean nothing; they are looked at all the same.
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(max_codepoint=255).filter(lambda c: c != token[place]))
    changed = token[:place] + other + token[place + 1 :]
    assert not is_taken(tokens, changed)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([b"authorization", b"x-api-key"]),
        st.binary(max_size=30) | st.sampled_from([b"Bearer a", b"bearer a", b"a", b"Basic a"]),
    )
)
def test_headers_hold_one_credential_or_none(given: dict[bytes, bytes]) -> None:
    status = 0
    try:
        credential = credential_of(given)
    except ApiError as error:
        status = error.status
    assert status == 401 or credential.encode("latin-1") in b" ".join(given.values())
