"""Tokens: taken by the issuers, keys, algorithms and rules of the configuration, and by nothing
that a token says of itself."""

import asyncio
import base64
import json
import time
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import jwt
import pytest

from orchestrator.gateway import jwks
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.jwks import KeySet
from orchestrator.gateway.jwt import TokenRefused, Tokens
from tests.tokens import ISSUER, SigningKey, claims_of, issuer, issuer_with_file, key_set

KEY = SigningKey("k1")


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "RETRY_S", 0)


def taken(token: str, directory: Path, *keys: SigningKey, **fields: Any) -> Caller | None:
    """By an issuer with these keys."""
    made = issuer_with_file(directory, *(keys or (KEY,)), **fields)

    async def ask() -> Caller | None:
        try:
            return await Tokens({ISSUER: KeySet(made)}).caller(token)
        except TokenRefused:
            return None

    return asyncio.run(ask())


def test_the_first_rule_whose_claims_a_token_has_says_for_whom_it_speaks(tmp_path: Path) -> None:
    for claims, workload in (
        ({"groups": "staff"}, "open"),
        ({"groups": ["a", "staff"], "azp": "robot", "internal": True}, "open"),
        ({"groups": [], "azp": "robot", "internal": True}, "closed"),
    ):
        caller = taken(KEY.token(**claims), tmp_path)
        assert caller is not None
        assert caller.workload == workload


@pytest.mark.parametrize(
    "claims",
    [
        {"groups": None},
        {"groups": "staffer"},
        {"groups": [["staff"]]},
        {"groups": {"staff": True}},
        {"groups": None, "azp": "robot"},
        {"groups": None, "azp": "robot", "internal": 1},
        {"groups": None, "azp": "robot", "internal": "true"},
    ],
)
def test_a_token_that_fits_no_rule_opens_nothing(tmp_path: Path, claims: dict[str, Any]) -> None:
    assert taken(KEY.token(**claims), tmp_path) is None


def test_what_a_rule_gives_is_the_callers(tmp_path: Path) -> None:
    rule = {
        "claims": {},
        "workload": "open",
        "scope": {"models": ["m"]},
        "limits": {"requests_per_minute": 3},
    }
    caller = taken(KEY.token(), tmp_path, workloads=[rule])
    assert caller is not None
    assert caller.scope.models == ["m"]
    assert caller.limits.requests_per_minute == 3


def test_a_caller_is_known_by_its_subject_which_is_not_told(tmp_path: Path) -> None:
    def caller_id(**claims: Any) -> str:
        caller = taken(KEY.token(**claims), tmp_path)
        assert caller is not None
        return caller.id

    known = caller_id(sub="jane@hospital.example")
    assert known.startswith("jwt:")
    assert "jane" not in known
    assert caller_id(sub="jane@hospital.example", jti="other") == known
    assert caller_id(sub="june@hospital.example") != known


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(time.time()) - 1},
        {"exp": None},
        {"exp": "never"},
        {"exp": 1e400},
        {"nbf": int(time.time()) + 100_000},
        {"iat": int(time.time()) + 100_000},
        {"aud": "other"},
        {"aud": None},
        {"iss": "https://other.test"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
    ],
    ids=lambda claims: " ".join(claims),
)
def test_a_token_for_another_time_or_place_is_refused(
    tmp_path: Path, claims: dict[str, Any]
) -> None:
    assert taken(KEY.token(**claims), tmp_path) is None


def test_clocks_may_differ_by_the_leeway(tmp_path: Path) -> None:
    late = KEY.token(exp=int(time.time()) - 5)
    assert taken(late, tmp_path, leeway_s=60)
    assert taken(late, tmp_path, leeway_s=0) is None


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES384", "EdDSA"])
def test_every_algorithm_that_can_be_configured_works(tmp_path: Path, algorithm: str) -> None:
    key = SigningKey("k", algorithm)
    assert taken(key.token(), tmp_path, key, algorithms=[algorithm])


def test_an_algorithm_that_is_not_configured_is_refused(tmp_path: Path) -> None:
    key = SigningKey("k", "RS256")
    assert taken(key.sign(claims_of(), "RS256"), tmp_path, key)
    assert taken(key.sign(claims_of(), "RS512"), tmp_path, key) is None


def test_a_key_serves_its_own_algorithm_alone(tmp_path: Path) -> None:
    key = SigningKey("k", "RS256")
    file = tmp_path / "only.json"
    file.write_text(json.dumps({"keys": [{**key.jwk, "alg": "RS512"}]}))
    fields = {"jwks_file": str(file), "algorithms": ["RS256", "RS512"]}
    assert taken(key.sign(claims_of(), "RS512"), tmp_path, **fields)
    assert taken(key.sign(claims_of(), "RS256"), tmp_path, **fields) is None


def forged(header: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims_of()).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def test_a_token_without_a_signature_is_refused(tmp_path: Path) -> None:
    for algorithm in ("none", "None", "NONE", "", None, ["ES256"], "ES256"):
        assert taken(forged({"alg": algorithm, "kid": "k1"}), tmp_path) is None


def test_a_public_key_is_no_secret_to_sign_with(tmp_path: Path) -> None:
    key = SigningKey("k", "RS256")
    secret = key.jwk["n"]
    token = jwt.api_jws.encode(json.dumps(claims_of()).encode(), secret, "HS256", {"kid": "k"})
    assert taken(token, tmp_path, key) is None


def test_a_symmetric_or_private_key_in_the_set_is_not_taken_for_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "odd.json"
    oct_key = {"kty": "oct", "kid": "k1", "k": base64.urlsafe_b64encode(b"a" * 32).decode()}
    encrypting = {**KEY.jwk, "use": "enc"}
    broken = [1, None, {}, {"kty": "RSA", "kid": "k1"}, {"kty": "EC", "kid": ["k1"]}]
    file.write_text(json.dumps({"keys": [oct_key, encrypting, *broken, SigningKey("k2").jwk]}))
    assert taken(KEY.token(), tmp_path, jwks_file=str(file)) is None
    file.write_text(json.dumps({"keys": [oct_key, *broken, KEY.jwk]}))
    assert taken(KEY.token(), tmp_path, jwks_file=str(file))


def test_a_token_brings_no_keys_and_names_no_place_for_them(tmp_path: Path) -> None:
    thief = SigningKey("k1")
    assert taken(thief.sign(claims_of(), jwk=thief.jwk), tmp_path) is None
    for name in ("jku", "x5u"):
        assert taken(thief.sign(claims_of(), **{name: "http://127.0.0.1:1/k"}), tmp_path) is None


def test_a_token_whose_key_is_not_named_is_refused(tmp_path: Path) -> None:
    assert taken(forged({"alg": "ES256"}), tmp_path) is None


@pytest.mark.parametrize("change", ["claims", "signature", "header"])
def test_a_token_that_was_changed_is_refused(tmp_path: Path, change: str) -> None:
    header, claims, signature = KEY.token().split(".")
    other = SigningKey("k1").token(groups="staff", sub="other").split(".")
    if change == "claims":
        claims = other[1]
    elif change == "signature":
        signature = other[2]
    else:
        header = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"k1","a":1}').rstrip(b"=").decode()
    assert taken(f"{header}.{claims}.{signature}", tmp_path) is None


class Clock:
    """The times of a process, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed_s = 0.0
        wall, monotonic = time.time, time.monotonic
        monkeypatch.setattr(time, "time", lambda: wall() + self.passed_s)
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + self.passed_s)
        clock = self

        class Later(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> "Later":
                return cls.fromtimestamp(wall() + clock.passed_s, tz)

        monkeypatch.setattr("jwt.api_jwt.datetime", Later)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def renewed(keys: KeySet) -> None:
    await keys.look_again()


async def is_taken(tokens: Tokens, token: str) -> bool:
    try:
        await tokens.caller(token)
    except TokenRefused:
        return False
    return True


def test_a_verified_token_is_not_verified_again_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    decode = jwt.decode

    def counted(token: str, *rest: Any, **options: Any) -> Any:
        verified.append(token)
        return decode(token, *rest, **options)

    monkeypatch.setattr(jwt, "decode", counted)

    async def test() -> None:
        tokens = Tokens({ISSUER: KeySet(issuer_with_file(tmp_path, KEY))})
        token = KEY.token(exp=int(time.time()) + 100)
        assert await is_taken(tokens, token)
        assert await is_taken(tokens, token)
        assert len(verified) == 1
        clock = Clock(monkeypatch)
        clock.passed_s = 101
        assert not await is_taken(tokens, token)

    asyncio.run(test())


def test_a_key_that_its_issuer_takes_back_ends_the_tokens_that_were_verified_with_it(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        made = issuer_with_file(tmp_path, KEY)
        keys = KeySet(made)
        tokens, token = Tokens({ISSUER: keys}), KEY.token()
        assert await is_taken(tokens, token)
        (tmp_path / "keys.json").write_bytes(key_set(SigningKey("k2")))
        await renewed(keys)
        assert not await is_taken(tokens, token)
        # Nor does another key of the same name.
        (tmp_path / "keys.json").write_bytes(key_set(SigningKey("k1")))
        await renewed(keys)
        assert not await is_taken(tokens, token)

    asyncio.run(test())


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"keys": 1}', b"a" * 300_000, None])
def test_keys_that_were_had_last_hold_for_their_time_when_no_others_come(
    tmp_path: Path, clock: Clock, broken: bytes | None
) -> None:
    async def test() -> None:
        keys = KeySet(issuer_with_file(tmp_path, KEY, max_age_s=1000))
        tokens = Tokens({ISSUER: keys})
        token = KEY.token(exp=int(time.time()) + 5000)
        assert await is_taken(tokens, token)
        file = tmp_path / "keys.json"
        if broken is None:
            file.unlink()
        else:
            file.write_bytes(broken)
        clock.passed_s = 900
        await renewed(keys)
        assert await is_taken(tokens, token)
        assert await is_taken(tokens, KEY.token(jti="new", exp=int(time.time()) + 5000))
        clock.passed_s = 1100
        assert not await is_taken(tokens, token)
        file.write_bytes(key_set(KEY))
        assert await is_taken(tokens, token)

    asyncio.run(test())


def test_tokens_with_unknown_keys_cause_one_look_in_a_while(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "RETRY_S", 10)
    looks: list[float] = []
    read = jwks._read

    def counted(file: Path) -> bytes:
        looks.append(time.monotonic())
        return read(file)

    monkeypatch.setattr(jwks, "_read", counted)

    async def test() -> None:
        tokens = Tokens({ISSUER: KeySet(issuer_with_file(tmp_path, KEY))})
        strangers = [SigningKey(f"s{n}").token() for n in range(20)]
        assert not any(await asyncio.gather(*(is_taken(tokens, t) for t in strangers)))
        assert len(looks) == 1
        assert await is_taken(tokens, KEY.token())
        clock.passed_s = 11
        (tmp_path / "keys.json").write_bytes(key_set(KEY, new := SigningKey("k2")))
        assert await is_taken(tokens, new.token())
        assert len(looks) == 2

    asyncio.run(test())


def test_memory_of_verified_tokens_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.gateway.jwt.MAX_VERIFIED", 3)

    async def test() -> None:
        tokens = Tokens({ISSUER: KeySet(issuer_with_file(tmp_path, KEY))})
        for number in range(10):
            assert await is_taken(tokens, KEY.token(jti=str(number)))
        assert len(tokens._verified) == 3

    asyncio.run(test())


def test_issuers_without_keys_take_nothing() -> None:
    keys = KeySet(issuer(jwks_file="/nowhere/at/all.json"))
    assert not asyncio.run(is_taken(Tokens({ISSUER: keys}), KEY.token()))
