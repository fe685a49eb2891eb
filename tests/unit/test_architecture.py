"""Imports point one way, and only one module can reach an upstream."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "orchestrator"

ALLOWED = {
    "config": set(),
    "policy": {"config"},
    "signals": {"config"},
    "capacity": {"policy", "config"},
    "pools": {"policy", "signals", "config"},
    "zombies": {"policy", "signals", "config"},
    "ledger": {"config"},
    "sessions": {"config"},
    "classify": {"config"},
    "batch": {"policy", "config"},
    "gateway": {"batch", "classify", "sessions", "ledger", "policy", "signals", "config"},
    "controller": {"zombies", "capacity", "pools", "ledger", "policy", "signals", "config"},
    "traces": {"config"},
    "simulate": {"traces", "capacity", "ledger", "policy", "signals", "config"},
    "replay": {"traces", "config"},
    "profile": {"replay", "signals", "config"},
    "stack": {"pools", "policy", "config"},
    "manifests": {"gateway", "controller", "stack", "pools", "policy", "signals", "config"},
}

EVERYWHERE = ("durable", "safe_log")
"""Modules beside the packages, which import none."""

OPENS_CONNECTIONS = {
    "gateway/http1.py": "content, for a grant: upstream alone uses it",
    "gateway/server.py": "listens for clients",
    "gateway/jwks.py": "public keys of token issuers, from where the configuration says",
    "gateway/tracing.py": "spans to the operator's collector, never content",
    "gateway/leave.py": "asks the gateways of its own pod whether a request is open",
    "gateway/exchange.py": "reports and snapshots, never content",
    "signals/prices_http.py": "prices, from where the configuration says, never content",
    "pools/kubernetes_api.py": "the API server of a Kubernetes cluster",
    "pools/kuberay.py": "takes the session that every actuator gets",
    "pools/ray.py": "Serve's API",
    "pools/openai.py": "takes the session that all actuators get, and leaves it",
    "pools/engine.py": "engine metrics, warm-up",
    "pools/exporters.py": "DCGM exporters and lists of adapters, for sweeps",
    "controller/lease.py": "the machine's name",
    "controller/kubernetes_lease.py": "who leads, from Kubernetes",
    "controller/fleet.py": "hands its session to the pools",
    "controller/main.py": "makes that session, listens for gateways",
    "controller/http.py": "answers gateways",
    "stack/up.py": "deploys the gateway, asks the controller",
    "cli/stack.py": "asks the controller",
    "cli/policy.py": "asks the controller",
}
NETWORK = {
    "aiohttp",
    "httpx",
    "kubernetes",
    "requests",
    "urllib3",
    "socket",
    "urllib.request",
    "http.client",
    "openai",
    "opentelemetry.exporter",
}
CONNECTS = {
    "open_connection",
    "open_unix_connection",
    "create_connection",
    "create_unix_connection",
    "create_datagram_endpoint",
    "sock_connect",
    "start_server",
}
"""What asyncio opens connections with."""
CLIENT_SIDE = (
    *("replay/", "profile/", "simulate/"),
    *(f"cli/{command}.py" for command in ("replay", "profile", "demo", "simulate_engine")),
)
"""Drives an endpoint from outside, or stands in for one."""


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        for name in imported(file):
            parts = name.split(".")
            if parts[0] == "orchestrator" and len(parts) > 1:
                allowed = ALLOWED[package] | {package, *EVERYWHERE}
                assert parts[1] in allowed, f"{file} imports {name}"


@pytest.mark.parametrize("module", EVERYWHERE)
def test_what_all_packages_may_import_imports_none_of_them(module: str) -> None:
    assert not any(name.startswith("orchestrator") for name in imported(ROOT / f"{module}.py"))


def test_decide_alone_makes_grants() -> None:
    for file in modules():
        uses = {"orchestrator.policy.grant.seal", "orchestrator.policy.grant._SEAL"}
        makes = imported(file) & uses or "grant.seal(" in file.read_text()
        if makes:
            assert file.relative_to(ROOT).as_posix() == "policy/decide.py"


def test_only_the_listed_modules_can_open_a_connection() -> None:
    for file in modules():
        place = file.relative_to(ROOT).as_posix()
        if place.startswith(CLIENT_SIDE) or place in OPENS_CONNECTIONS:
            continue
        reached = {
            n for n in imported(file) if any(n == x or n.startswith(f"{x}.") for x in NETWORK)
        }
        assert not reached, f"{place} imports {reached}"
        used = {name for name in CONNECTS if f".{name}(" in file.read_text()}
        assert not used, f"{place} uses {used}"


OWN_WORDS = {"FeedError", "KeysRefused", "TokenRefused"}
"""Exceptions whose text quotes nobody."""


def tells(part: ast.AST, error: str | None) -> bool:
    """Whether the text of an exception of that name is in the expression: an attribute of it is a
    choice, and so is what a function makes of it."""
    if isinstance(part, ast.Name):
        return part.id == error
    if isinstance(part, ast.Attribute):
        return False
    if isinstance(part, ast.Call) and ast.unparse(part.func) not in ("str", "repr"):
        return False
    return any(tells(inner, error) for inner in ast.iter_child_nodes(part))


def texts_in_logs(tree: ast.AST) -> Iterator[int]:
    """Lines that log an exception as it is, its text or its traceback."""
    for handler in (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)):
        in_own_words = handler.type is not None and ast.unparse(handler.type) in OWN_WORDS
        for call in (node for node in ast.walk(handler) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "log.exception" or (
                ast.unparse(call.func).startswith("log.")
                and not in_own_words
                and any(tells(argument, handler.name) for argument in call.args)
            ):
                yield call.lineno


def test_no_log_has_the_text_of_an_exception() -> None:
    """It may quote what a client or an endpoint sent, an address, a credential:
    `safe_log.without_text` tells the rest."""
    for file in modules():
        tree = ast.parse(file.read_text())
        assert not list(texts_in_logs(tree)), f"{file}:{list(texts_in_logs(tree))}"
        words = (node for node in ast.walk(tree) if isinstance(node, ast.keyword))
        assert not any(word.arg == "exc_info" for word in words), file


@pytest.mark.parametrize(
    ("logged", "is_text"),
    [
        ('log.error("%s", error)', True),
        ('log.error("%s", str(error) or "timeout")', True),
        ('log.error(f"{error!r}")', True),
        ('log.exception("it failed")', True),
        ('log.error("%s", error.strerror or error)', True),
        ('log.error("%s", error.strerror)', False),
        ('log.error("%s", without_text(error))', False),
        ('log.error("%s", type(error).__name__)', False),
    ],
)
def test_a_text_in_a_log_would_be_found(logged: str, is_text: bool) -> None:
    tree = ast.parse(f"try: pass\nexcept OSError as error: {logged}")
    assert bool(list(texts_in_logs(tree))) == is_text


def test_every_module_says_what_it_is_for() -> None:
    for file in modules():
        if file.name in ("__main__.py",) or file == ROOT / "__init__.py":
            continue
        assert ast.get_docstring(ast.parse(file.read_text())), f"{file} has no docstring"
