"""What `validate` finds wrong with keys, scopes, limits and token issuers."""

from pathlib import Path

import pytest

from orchestrator.config.load import load
from tests.configurations import company, problems

KEY = """
keys:
  - id: aaaaaaaa
    workload: website-chat
    sha256: "{hash}"
    created_at: 2026-11-02T08:00:00Z
    scope: {scope}
"""
ISSUER = """
  jwt:
    - issuer: https://login.example
      audience: inference
      jwks_url: https://login.example/keys
      workloads:
        - {{claims: {{groups: a}}, workload: website-chat}}
{more}
"""


def key(scope: str) -> str:
    return KEY.format(hash="0" * 64, scope=scope)


def with_issuer(tmp_path: Path, old: str = "", new: str = "", more: str = "") -> Path:
    """The example company with one issuer, in which something is changed, and more after it."""
    directory = company(tmp_path)
    settings = directory / "settings.yaml"
    text = settings.read_text()
    start, end = text.index("  jwt:"), text.index("controller:")
    issuer = ISSUER.format(more=more)
    assert old in issuer
    settings.write_text(text[:start] + issuer.replace(old, new, 1).lstrip("\n") + text[end:])
    return directory


def found(directory: Path) -> str:
    listed = problems(directory)
    assert len(listed) == 1, listed
    return listed[0]


def test_a_scope_names_models_that_its_workload_has(tmp_path: Path) -> None:
    there = found(company(tmp_path, "keys.yaml", key("{models: [chat-small, coder]}")))
    assert there.startswith("keys.yaml:7: ")
    assert "workload 'website-chat' has no model 'coder'; it has: chat-small" in there


def test_a_scope_names_models_that_exist(tmp_path: Path) -> None:
    there = found(company(tmp_path, "keys.yaml", key("{models: [nobodys]}")))
    assert "model 'nobodys' is not defined" in there


@pytest.mark.parametrize("scope", ["{endpoints: [chats]}", "{endpoints: []}", "{models: []}"])
def test_a_scope_of_nothing_or_of_unknown_endpoints_is_refused(tmp_path: Path, scope: str) -> None:
    assert "keys.yaml:7: keys[0].scope." in found(company(tmp_path, "keys.yaml", key(scope)))


def test_the_issuer_of_these_tests_is_valid(tmp_path: Path) -> None:
    assert load(with_issuer(tmp_path)).configuration.gateway.jwt


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "none", "ES256K"])
def test_algorithms_that_need_no_private_key_of_the_issuer_are_refused(
    tmp_path: Path, algorithm: str
) -> None:
    line = f"audience: inference\n      algorithms: [{algorithm}]"
    assert "algorithms[0]: input should be 'RS256'" in found(
        with_issuer(tmp_path, "audience: inference", line)
    )


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://login.example/keys", True),
        ("http://127.0.0.1:8080/keys", True),
        ("http://localhost/keys", True),
        ("http://[::1]:8080/keys", True),
        ("http://login.example/keys", False),
        ("http://127.0.0.1.login.example/keys", False),
        ("http://10.0.0.1/keys", False),
        ("http://localhost.login.example/keys", False),
    ],
)
def test_keys_come_by_https_unless_from_this_machine(tmp_path: Path, url: str, taken: bool) -> None:
    directory = with_issuer(tmp_path, "https://login.example/keys", url)
    if taken:
        load(directory)
    else:
        assert "write https://" in found(directory)


@pytest.mark.parametrize("url", ["ftp://login.example/keys", "https://a@login.example/keys", "x"])
def test_what_is_no_url_is_refused(tmp_path: Path, url: str) -> None:
    assert "jwks_url" in found(with_issuer(tmp_path, "https://login.example/keys", url))


def test_keys_have_one_place(tmp_path: Path) -> None:
    url = "jwks_url: https://login.example/keys"
    assert "one of jwks_url and jwks_file" in found(with_issuer(tmp_path / "a", f"      {url}\n"))
    both = f"{url}\n      jwks_file: build-server.jwks.json"
    assert "one of jwks_url and jwks_file" in found(with_issuer(tmp_path / "b", url, both))


def test_a_file_of_keys_stands_beside_its_configuration(tmp_path: Path) -> None:
    url = "jwks_url: https://login.example/keys"
    there = with_issuer(tmp_path / "a", url, "jwks_file: build-server.jwks.json")
    issuer = load(there).configuration.gateway.jwt[0]
    assert issuer.jwks_file == str(there / "build-server.jwks.json")
    gone = with_issuer(tmp_path / "b", url, "jwks_file: gone.json")
    assert "give the path of a JSON Web Key Set" in found(gone)


def test_an_issuer_stands_once(tmp_path: Path) -> None:
    again = """\
    - issuer: https://login.example
      audience: other
      jwks_url: https://login.example/keys
      workloads: [{claims: {}, workload: website-chat}]
"""
    assert "'https://login.example' stands above already" in found(
        with_issuer(tmp_path, more=again)
    )


def test_a_rule_names_a_workload_and_models_that_it_has(tmp_path: Path) -> None:
    assert "workload 'nobody' is not defined" in found(
        with_issuer(tmp_path / "a", "workload: website-chat", "workload: nobody")
    )
    scoped = "workload: website-chat, scope: {models: [coder]}"
    assert "workload 'website-chat' has no model 'coder'" in found(
        with_issuer(tmp_path / "b", "workload: website-chat", scoped)
    )


@pytest.mark.parametrize("claims", ["{groups: a}", "{groups: a, email_verified: true}"])
def test_a_rule_that_an_earlier_one_leaves_nothing_is_found(tmp_path: Path, claims: str) -> None:
    more = f"        - {{claims: {claims}, workload: code-review}}"
    assert "never decides: rule 1 takes every token" in found(with_issuer(tmp_path, more=more))


def test_keys_hold_until_they_are_renewed(tmp_path: Path) -> None:
    assert "shorter than refresh_s" in found(
        with_issuer(tmp_path, "audience: inference", "audience: inference\n      max_age_s: 10")
    )


@pytest.mark.parametrize("limits", ["{requests_per_minute: 0}", "{tokens_per_minute: -1}"])
def test_a_limit_lets_something_through(tmp_path: Path, limits: str) -> None:
    scoped = f"workload: website-chat, limits: {limits}"
    assert "greater than or equal to 1" in found(
        with_issuer(tmp_path, "workload: website-chat", scoped)
    )
