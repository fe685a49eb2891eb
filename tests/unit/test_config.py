"""A configuration directory is read as a whole, or refused with file, line and mend."""

from pathlib import Path

import pytest

from orchestrator.config.load import ConfigurationError, load

LOCAL = Path(__file__).parents[2] / "clusters" / "local"


def copy(tmp_path: Path, file: str = "", old: str = "", new: str = "") -> Path:
    """The local configuration with one text replaced."""
    (tmp_path / "prices").mkdir()
    for source in [*LOCAL.glob("*.yaml"), *LOCAL.glob("prices/*")]:
        if source.name == "keys.yaml":
            continue
        text = source.read_text()
        if source.name == file:
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / source.relative_to(LOCAL)).write_text(text)
    return tmp_path


def problems(directory: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(directory)
    return [f"{p.path.name}:{p.line}: {p.message}" for p in caught.value.problems]


def line(directory: Path, file: str, text: str) -> int:
    lines = (directory / file).read_text().splitlines()
    return 1 + next(i for i, content in enumerate(lines) if text in content)


def test_the_local_configuration_is_valid(tmp_path: Path) -> None:
    loaded = load(copy(tmp_path))
    assert [p.name for p in loaded.configuration.pools] == ["onprem-cpu", "cloud-cpu"]


def test_the_version_follows_the_content_and_not_the_keys(tmp_path: Path) -> None:
    before = load(copy(tmp_path)).version
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    assert load(tmp_path).version == before
    with (tmp_path / "settings.yaml").open("a") as file:
        file.write("# a remark\n")
    assert load(tmp_path).version != before


@pytest.mark.parametrize(
    ("file", "old", "new", "mend"),
    [
        ("workloads.yaml", "ttft_p95_s: 1.5", "ttft_p95: 1.5", "did you mean 'ttft_p95_s'"),
        ("workloads.yaml", "data_class: internal", "data_class: secret", "restricted"),
        ("workloads.yaml", "allowed_zones: [onprem]", "allowed_zones: [moon]", "defined are"),
        ("workloads.yaml", "pools: [cloud-cpu]", "pools: [cloud-gpu]", "defined are"),
        ("clusters.yaml", "cluster: cloud", "cluster: clod", "defined are"),
        ("clusters.yaml", "max_replicas: 1", "max_replicas: none", "integer"),
        ("clusters.yaml", "port_base: 6600", "port_base: 6450", "move it apart"),
        ("clusters.yaml", "feed: market", "feed: bazaar", "defined are"),
        ("settings.yaml", "127.0.0.1:8000", "127.0.0.1:8001", "a port of its own"),
        ("settings.yaml", "127.0.0.1:8000", "127.0.0.1:80000", "not a URL"),
        ("clusters.yaml", "http://127.0.0.1:8001", "http://[127.0.0.1", "not a URL"),
        ("clusters.yaml", "file: prices/market.csv", "file: prices/none.csv", "give the path"),
    ],
)
def test_a_mistake_is_reported_at_its_line_with_the_mend(
    tmp_path: Path, file: str, old: str, new: str, mend: str
) -> None:
    directory = copy(tmp_path, file, old, new)
    (problem,) = problems(directory)
    assert problem.startswith(f"{file}:{line(directory, file, new)}: ")
    assert mend in problem


def test_what_is_missing_is_reported_where_it_belongs(tmp_path: Path) -> None:
    directory = copy(tmp_path, "clusters.yaml", "    max_data_class: restricted\n", "")
    (problem,) = problems(directory)
    assert problem.startswith(f"clusters.yaml:{line(directory, 'clusters.yaml', '- name: onprem')}")
    assert "max_data_class: is missing" in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zones: [", "not YAML"),
        ("- a\n", "mapping of sections"),
        ("zones: &z []\nclusters: *z\n", "anchors are not taken"),
        ("policy: {max_attempts: 1, max_attempts: 2}\n", "stands here twice"),
        ("policy: !!python/object:os.system {}\n", "tag"),
        ("policy: {max_attempts: 2026-99-99}\n", "quotes"),
        ("? [a]\n: 1\n", ""),
        ("policy:\n  ? [a]\n  : 1\n", ""),
        ('price_feeds:\n  - {name: a, file: "\\0"}\n', ""),
        ("policy:\n" + "".join(f"{' ' * (i + 1)}a:\n" for i in range(40)), "nested deeper"),
    ],
)
def test_yaml_that_nobody_needs_is_refused(tmp_path: Path, text: str, message: str) -> None:
    directory = copy(tmp_path)
    (directory / "more.yaml").write_text(text)
    assert any(p.startswith("more.yaml:") and message in p for p in problems(directory))


def test_a_file_that_goes_away_while_it_is_read_is_a_problem_like_any_other(tmp_path: Path) -> None:
    directory = copy(tmp_path)
    (directory / "more.yaml").symlink_to(directory / "none.yaml")
    assert problems(directory) == ["more.yaml:1: not a file; give it another name or remove it"]


def test_the_gateway_stands_where_the_highest_data_may_be(tmp_path: Path) -> None:
    directory = copy(tmp_path, "settings.yaml", "cluster: onprem", "cluster: cloud")
    (problem,) = problems(directory)
    assert problem.startswith(f"settings.yaml:{line(directory, 'settings.yaml', 'cluster: cloud')}")
    assert "may not hold restricted data; name a cluster" in problem


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    directory = copy(tmp_path, "workloads.yaml", "data_class: internal", "data_class: secret")
    clusters = directory / "clusters.yaml"
    clusters.write_text(clusters.read_text().replace("min_replicas: 1", "min_replicas: -1"))
    assert {p.split(":")[0] for p in problems(directory)} == {"workloads.yaml", "clusters.yaml"}


def test_a_pool_that_somebody_else_runs_is_always_there(tmp_path: Path) -> None:
    directory = copy(
        tmp_path,
        "clusters.yaml",
        "kind: ray\n    url: http://127.0.0.1:8002\n    dashboard_url: http://127.0.0.1:8266\n"
        "    token_env: RAY_AUTH_TOKEN\n    launch:\n      node_ip_address: 127.0.0.2\n"
        "      port_base: 6600\n      cpus: [1]\n",
        "kind: openai\n    url: https://models.example/v1/\n",
    )
    url, replicas = problems(directory)
    assert url.startswith(f"clusters.yaml:{line(directory, 'clusters.yaml', 'models.example')}: ")
    assert "leave it out" in url
    assert "min_replicas: 1" in replicas


def test_a_workloads_home_always_has_a_replica(tmp_path: Path) -> None:
    directory = copy(tmp_path, "clusters.yaml", "min_replicas: 1", "min_replicas: 0")
    found = problems(directory)
    assert [p.split(":")[0] for p in found] == ["workloads.yaml"] * 2
    assert all("give onprem-cpu a min_replicas above 0" in p for p in found)


def test_a_key_expires_at_a_moment_and_not_at_some_clock_time(tmp_path: Path) -> None:
    keys = "keys:\n  - id: aaaaaaaa\n    workload: assistant\n    sha256: '" + "0" * 64 + "'"
    keys += "\n    created_at: 2026-01-01T00:00:00Z\n    expires_at: 2027-01-01T00:00:00"
    directory = copy(tmp_path)
    (directory / "keys.yaml").write_text(f"{keys}\n")
    (problem,) = problems(directory)
    assert problem.startswith("keys.yaml:6: keys[0].expires_at:")
    assert "timezone" in problem
    (directory / "keys.yaml").write_text(f"{keys}Z\n")
    assert load(directory).configuration.keys


def test_an_empty_directory_says_what_to_give(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path)
    assert "give a configuration directory" in problem
