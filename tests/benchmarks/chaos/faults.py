"""What is done to the stack, one at a time, each until it is seen to have passed."""

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from orchestrator.stack import ray_head
from orchestrator.stack.up import environment
from tests.benchmarks.chaos import inventory
from tests.benchmarks.chaos.feed import FLICKER, HANG, LIES
from tests.benchmarks.chaos.records import FAILURES
from tests.benchmarks.chaos.world import NotSeen, World, kill

DOWN_S = (4.0, 15.0)
"""How long nobody leads."""
STANDBY_S = 10.0
"""Within which a controller has come up and stands by."""
REFRESHES = 3
"""Fetches for which a lie goes on: as many as would confirm a price that can be."""
CALM_S = 25.0
"""After which a surge is out of the latency windows."""
REPLICA_S = 300.0
"""Within which a replica serves that has to be started."""
SOON_S = 60.0
LOST_S = 120.0
"""Within which a dead engine is noticed."""

Act = Callable[[World, random.Random], None]


def home_serves(world: World) -> None:
    """Raises NotSeen."""
    place = world.place
    world.wait(
        "home serves", lambda s: s["pools"][place.home_pool]["replicas_ready"] >= 1, REPLICA_S
    )


def at_home(world: World) -> None:
    """Nothing is rented, and the next burst may begin. Raises NotSeen."""
    world.load.surge(False)
    spec = world.loaded.configuration
    burst = next(w.burst for w in spec.workloads if w.name == world.place.bursting)
    assert burst is not None
    cooldown_s = burst.cooldown_s

    def may_burst(state: dict[str, Any]) -> bool:
        since_s = world.burst(state)["since_s"]
        return world.is_home(state) and (not since_s or time.time() - since_s > cooldown_s)

    world.wait("nothing is rented", may_burst, REPLICA_S)


def cloud_serves(world: World) -> None:
    """A burst that has what it needs. Raises NotSeen."""
    began_s = time.time()
    world.load.surge(True)
    place = world.place
    serves = world.serves(place.bursting, place.cloud_pool, began_s)
    world.wait(
        "a burst that serves",
        lambda s: world.burst(s)["state"] == "bursting" and serves(s),
        REPLICA_S,
    )


def back(world: World, since_s: float) -> Callable[[dict[str, Any]], bool]:
    """The cloud is as the burst needs it: it serves, or it is gone."""
    place = world.place
    serves = world.serves(place.bursting, place.cloud_pool, since_s)
    return lambda s: serves(s) if world.burst(s)["state"] == "bursting" else world.is_home(s)


def controller(world: World, mix: random.Random) -> None:
    """Nobody leads for a while; then a controller goes on from what was remembered."""
    home_serves(world)
    with world.fault("controller") as fault:
        kill(world.controllers())
        down_s = mix.uniform(*DOWN_S)
        time.sleep(down_s)
        world.start_controller()
        _leads_again(world)
        fault.note = f"started anew after {down_s:.0f} s"


def standby(world: World, _: random.Random) -> None:
    """The leader is killed while another stands by."""
    home_serves(world)
    world.start_controller()
    time.sleep(STANDBY_S)
    if len(world.controllers()) < 2:
        raise NotSeen("a second controller stands by: it does not")
    leader = world.leader()
    with world.fault("leader") as fault:
        killed_s = time.time()
        kill([leader])
        _leads_again(world)
        fault.note = f"gateways heard the next one within {time.time() - killed_s:.1f} s"


def _leads_again(world: World) -> None:
    """A report of a gateway reaches a new controller only."""
    world.wait("a controller leads and gateways hear it", lambda s: s["gateways"], SOON_S)


def cloud_head(world: World, mix: random.Random) -> None:
    """Every process of the cloud's cluster is killed, and an empty one takes its place."""
    cloud_serves(world)
    cluster = world.cluster(world.place.cloud_pool)
    with world.fault("cloud head", world.place.cloud_pool) as fault:
        killed = kill_cluster(world, cluster.name)
        fault.note = f"{killed} processes killed"
        time.sleep(mix.uniform(*DOWN_S))
        started_s = time.time()
        # It pins the thread that it runs in.
        with ThreadPoolExecutor(1) as thread:
            start = thread.submit(ray_head.start, cluster, world.state, environment(world.state))
        if start.exception() is not None:
            raise NotSeen(f"the cloud's head starts again: {start.exception()}")
        is_back = back(world, started_s)
        world.wait(
            "the cloud is back",
            lambda s: cluster.name not in s["clusters_lost"] and is_back(s),
            REPLICA_S,
        )
    world.load.surge(False)


def kill_cluster(world: World, name: str) -> int:
    """Until nothing of it is left. Returns how many were killed. Raises NotSeen."""
    killed = 0
    for _ in range(10):
        found = inventory.members(world.state, world.clusters, name)
        if not found:
            return killed
        kill(found)
        killed += len(found)
    raise NotSeen(f"the end of cluster {name}: something of it goes on")


def cloud_engine(world: World, _: random.Random) -> None:
    cloud_serves(world)
    place = world.place
    with world.fault("cloud engine", place.cloud_pool) as fault:
        fault.note = f"{_kill_engines(world, place.cloud_pool)} engines killed"
        # Until Serve has seen it, the pool looks as it did.
        _not_ready(world, place.cloud_pool)
        world.wait("the cloud is back", back(world, time.time()), REPLICA_S)
    world.load.surge(False)


def home_engine(world: World, _: random.Random) -> None:
    home_serves(world)
    pool = world.place.home_pool
    with world.fault("home engine", pool) as fault:
        fault.note = f"{_kill_engines(world, pool)} engines killed"
        _not_ready(world, pool)
        world.wait("home is back", _home_answers(world, time.time()), REPLICA_S)


def _kill_engines(world: World, pool: str) -> int:
    found = [
        process
        for process in inventory.members(world.state, world.clusters, world.cluster(pool).name)
        if _is_engine(process)
    ]
    if not found:
        raise NotSeen(f"an engine of {pool}: there is none")
    kill(found)
    return len(found)


def _is_engine(process: psutil.Process) -> bool:
    try:
        return "VLLM" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _not_ready(world: World, pool: str) -> None:
    world.wait(
        f"{pool} is seen to be lost", lambda s: not s["pools"][pool]["replicas_ready"], LOST_S
    )


def _home_answers(world: World, since_s: float) -> Callable[[dict[str, Any]], bool]:
    resident = next(
        w.name for w in world.loaded.configuration.workloads if w.name != world.place.bursting
    )
    return world.serves(resident, world.place.home_pool, since_s)


def price_hangs(world: World, _: random.Random) -> None:
    """A surge meets a price that nobody renews."""
    at_home(world)
    with world.fault("price hangs") as fault:
        world.feed.does = HANG
        try:
            world.wait("the price is stale", lambda s: _is_stale(world, s), SOON_S)
            fault.note = _surge_in_vain(world, 30)
        finally:
            world.feed.does = "truth"
        world.wait("the price is believed", lambda s: not _is_stale(world, s), SOON_S)


def price_lies(world: World, mix: random.Random) -> None:
    """A surge meets one lie after the other, each for as long as would confirm a price."""
    at_home(world)
    (feed,) = world.loaded.configuration.price_feeds
    lies_s = REFRESHES * feed.refresh_s + 1
    lies = [*LIES, *FAILURES]
    mix.shuffle(lies)
    # One that is refused comes first: a feed that fails alone may be believed for a while.
    lies.sort(key=lambda lie: lie in FAILURES)
    with world.fault("price lies") as fault:
        try:
            world.feed.does = lies[0]
            world.wait("the price is refused", lambda s: _is_stale(world, s), SOON_S)
            world.load.surge(True)
            for lie in lies:
                world.feed.does = lie
                time.sleep(lies_s)
            world.feed.does = lies[0]
            world.load.surge(False)
            time.sleep(CALM_S)
            world.feed.does = FLICKER
            time.sleep(lies_s)
        finally:
            world.feed.does = "truth"
            world.load.surge(False)
        fault.note = ", ".join([*lies, FLICKER])
        world.wait("the price is believed", lambda s: not _is_stale(world, s), SOON_S)


def _surge_in_vain(world: World, for_s: float) -> str:
    world.load.surge(True)
    time.sleep(for_s)
    state = world.seen()
    reason = world.burst(state).get("reason", "") if state else ""
    world.load.surge(False)
    time.sleep(CALM_S)
    return reason


def _is_stale(world: World, state: dict[str, Any]) -> bool:
    quote = state["pools"][world.place.cloud_pool]["quote"]
    return quote is None or bool(quote["stale"])


def disk_full(world: World, _: random.Random) -> None:
    """The disk of the event log takes nothing while there is something to write."""
    home_serves(world)
    path, pool = world.state / "events.jsonl", world.place.cloud_pool
    last = last_event(path)
    with world.fault("disk full") as fault:
        kept = fill(path)
        try:
            # Of no effect on requests: for a moment nothing new goes there.
            world.command("pools", "drain", pool, "--for", "5s")
            time.sleep(15)
            was_full = last_event(kept) == last
        finally:
            free(path, kept)
        if not was_full:
            raise NotSeen("a disk that is full: it took events all the same")
        # The hold has ended by itself, and both its events were waiting.
        world.wait(
            "what waited is on disk",
            lambda _: sum(e["kind"] == "hold" for e in events_after(path, last)) >= 2,
            SOON_S,
        )
        fault.note = f"{len(events_after(path, last))} events waited for the disk"


def fill(path: Path) -> Path:
    """Whoever writes there finds the device full. Returns where the file is kept."""
    kept, link = path.with_name(f"{path.name}.kept"), path.with_name(f"{path.name}.full")
    kept.unlink(missing_ok=True)
    link.unlink(missing_ok=True)
    path.touch()
    # Under both names for a moment, so that there is always something at the path.
    os.link(path, kept)
    link.symlink_to("/dev/full")
    os.replace(link, path)
    return kept


def free(path: Path, kept: Path) -> None:
    os.replace(kept, path)


def events_after(path: Path, last: int) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["id"] > last:
            found.append(event)
    return found


def last_event(path: Path) -> int:
    """Its id; 0: there is none."""
    return max((e["id"] for e in events_after(path, 0)), default=0) if path.exists() else 0


def home_drained(world: World, mix: random.Random) -> None:
    """Home takes nothing for a while, by somebody's word."""
    home_serves(world)
    pool = world.place.home_pool
    with world.fault("home drained", pool):
        world.command("pools", "drain", pool)
        try:
            world.wait("home is held", lambda s: s["pools"][pool]["hold"] is not None, SOON_S)
            time.sleep(mix.uniform(*DOWN_S))
        finally:
            world.command("pools", "resume", pool)
        world.wait("home is back", _home_answers(world, time.time()), SOON_S)


ACTS: Mapping[str, Act] = {
    "controller": controller,
    "leader": standby,
    "cloud head": cloud_head,
    "cloud engine": cloud_engine,
    "home engine": home_engine,
    "price hangs": price_hangs,
    "price lies": price_lies,
    "disk full": disk_full,
    "home drained": home_drained,
}
"""By the names of the schedule."""
