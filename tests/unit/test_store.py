"""Applied versions of the rules: kept as they were, in force whole or not at all."""

import json
import os
import sys
from pathlib import Path

import pytest

from orchestrator.config import keys
from orchestrator.config.load import ConfigurationError, Loaded, Problem
from orchestrator.config.store import Applied, PolicyStore
from tests.unit.test_config import copy

CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink"}
"""What Python tells its audit hooks before it changes a file system."""


def nothing_else(directory: Path, loaded: Loaded) -> list[Problem]:
    return []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return copy(tmp_path / "source")


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore(tmp_path / "state")


def edit(source: Path, remark: str) -> None:
    with (source / "settings.yaml").open("a") as file:
        file.write(f"# {remark}\n")


def apply(store: PolicyStore, source: Path) -> Applied:
    return store.apply(source, nothing_else)


def in_force(store: PolicyStore) -> str:
    current = store.current()
    assert current is not None
    return current.version


def test_before_the_first_apply_nothing_is_in_force(store: PolicyStore) -> None:
    assert store.current() is None
    assert store.previous() is None
    assert store.history() == []


def test_an_applied_version_stays_as_it_was_whatever_becomes_of_its_directory(
    store: PolicyStore, source: Path
) -> None:
    text = (source / "workloads.yaml").read_bytes()
    version = apply(store, source).version
    (source / "workloads.yaml").write_text("workloads: []\n")
    assert store.load(version).version == version
    assert (store.files(version) / "workloads.yaml").read_bytes() == text


def test_relative_paths_of_a_kept_version_start_where_they_were_written(
    store: PolicyStore, source: Path
) -> None:
    loaded = store.load(apply(store, source).version)
    assert loaded.configuration.price_feeds[0].file == str(source / "prices" / "market.csv")


def test_keys_stay_in_the_directory_and_are_found_from_a_kept_version(
    store: PolicyStore, source: Path
) -> None:
    key, _ = keys.create(source, "assistant")
    applied = apply(store, source)
    assert not (store.files(applied.version) / keys.FILE).exists()
    ring = keys.KeyRing(store.load(applied.version).directory)
    ring.refresh()
    assert list(ring.keys) == [key.id]


def test_the_same_content_again_is_nothing_new_and_says_so(
    store: PolicyStore, source: Path
) -> None:
    first, second = apply(store, source), apply(store, source)
    assert not first.already
    assert second.already
    assert (second.version, second.applied_at) == (first.version, first.applied_at)
    assert len(store.history()) == 1


def test_the_same_content_from_elsewhere_takes_its_keys_from_there(
    store: PolicyStore, source: Path, tmp_path: Path
) -> None:
    apply(store, source)
    (tmp_path / "other").mkdir()
    moved = apply(store, copy(tmp_path / "other"))
    assert not moved.already
    assert store.load(moved.version).directory == tmp_path / "other"


def test_a_bad_directory_never_replaces_a_good_one(store: PolicyStore, source: Path) -> None:
    good = apply(store, source).version
    (source / "settings.yaml").write_text("gateway: 7\n")
    with pytest.raises(ConfigurationError, match="settings"):
        apply(store, source)
    assert in_force(store) == good
    assert store.load(good)


def test_what_the_check_finds_is_refused(store: PolicyStore, source: Path) -> None:
    def check(directory: Path, loaded: Loaded) -> list[Problem]:
        return [Problem(directory / "probes.yaml", 3, "not as expected")]

    with pytest.raises(ConfigurationError, match=r"probes\.yaml:3: not as expected"):
        store.apply(source, check)
    assert store.current() is None


def test_history_tells_what_was_in_force_and_a_rollback_is_part_of_it(
    store: PolicyStore, source: Path
) -> None:
    old = apply(store, source).version
    edit(source, "a change")
    new = apply(store, source).version
    previous = store.previous()
    assert previous is not None
    assert previous.version == old
    assert store.restore(old, nothing_else).version == old
    assert in_force(store) == old
    assert [a.version for a in store.history()] == [old, new, old]
    again = store.previous()
    assert again is not None
    assert again.version == new


def test_a_version_that_was_never_applied_is_not_known(store: PolicyStore, source: Path) -> None:
    version = apply(store, source).version
    with pytest.raises(ConfigurationError, match=f"there are: {version}"):
        store.load("000000000000")


@pytest.mark.parametrize("file", ["workloads.yaml", "more.yaml"])
def test_a_kept_version_whose_files_were_altered_is_refused_until_it_is_applied_again(
    store: PolicyStore, source: Path, file: str
) -> None:
    version = apply(store, source).version
    with (store.files(version) / file).open("a") as out:
        out.write("# altered\n")
    with pytest.raises(ConfigurationError, match="altered"):
        store.load(version)
    with pytest.raises(ConfigurationError, match="altered"):
        store.restore(version, nothing_else)
    assert not apply(store, source).already
    assert store.load(version).version == version


def test_probes_are_kept_with_a_version_and_make_no_new_one(
    store: PolicyStore, source: Path
) -> None:
    version = apply(store, source).version
    kept = store.files(version) / "probes.yaml"
    assert kept.read_bytes() == (source / "probes.yaml").read_bytes()
    (source / "probes.yaml").unlink()
    assert apply(store, source).already


def test_half_a_line_of_history_is_passed_over(store: PolicyStore, source: Path) -> None:
    old = apply(store, source).version
    history = store.files(old).parents[1] / "history.jsonl"
    with history.open("a") as file:
        file.write('{"version": "0123')
    edit(source, "a change")
    new = apply(store, source).version
    assert [a.version for a in store.history()] == [old, new]
    assert json.loads(history.read_text().splitlines()[-1])["version"] == new


def killed_apply(store: PolicyStore, source: Path, state: Path, step: int) -> bool:
    """Applies in a process that ends before its change number `step` to the state; false when it
    has made fewer."""
    child = os.fork()
    if child == 0:
        changes = iter(range(step))

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            concerned = any(str(a).startswith(str(state)) for a in arguments)
            if event in CHANGES and concerned and next(changes, None) is None:
                os._exit(9)

        sys.addaudithook(hook)
        try:
            apply(store, source)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("back", [False, True], ids=["a new version", "one that was known"])
def test_an_apply_that_is_killed_leaves_the_old_version_in_force_or_the_new_one(
    tmp_path: Path, source: Path, back: bool
) -> None:
    settings = (source / "settings.yaml").read_text()
    step, seen = 0, set()
    while True:
        state = tmp_path / f"state-{step}"
        store = PolicyStore(state)
        (source / "settings.yaml").write_text(settings)
        versions = [apply(store, source).version]
        edit(source, "a change")
        if back:
            versions = [apply(store, source).version, versions[0]]
            (source / "settings.yaml").write_text(settings)
        killed = killed_apply(store, source, state, step)
        found = in_force(store)
        assert store.load(found).version == found
        assert store.history()[-1].version == found
        seen.add(found)
        after = apply(store, source).version
        assert in_force(store) == after
        assert store.load(after).version == after
        history = [a.version for a in store.history()]
        assert history[-2:] == [versions[0], after], "each version in force is in the history once"
        if not killed:
            break
        step += 1
    assert step > 10
    assert seen == {versions[0], after}
