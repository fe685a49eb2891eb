"""The real local stack under faults: kills, a lying price, a full disk; and what must hold.

    python -m tests.benchmarks.chaos --minutes 20

Two Ray clusters, gateway, controller and vLLM, on a copy of `clusters/local` whose cloud has its
price from a feed of this program's own, all on loopback. Clients stream all the time, some of whom
may burst. By a seed one fault comes after the other, each when the one before has passed. What was
recorded decides; exit code 1 where a claim does not hold. Ctrl-C stops it and cleans up.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.app import out
from orchestrator.cli.scene import show_checks
from orchestrator.cli.stack import interrupt_on_polite_kill
from orchestrator.config.load import Loaded, load, state_directory
from orchestrator.replay.observer import Observer
from orchestrator.replay.verdict import Check
from orchestrator.stack import processes
from orchestrator.stack.secrets import secret
from tests.benchmarks.chaos import inventory, plot, verdict
from tests.benchmarks.chaos.faults import ACTS, REPLICA_S, events_after
from tests.benchmarks.chaos.feed import PriceFeed
from tests.benchmarks.chaos.load import Load
from tests.benchmarks.chaos.records import Place, Records
from tests.benchmarks.chaos.schedule import deck, following
from tests.benchmarks.chaos.world import NotSeen, World
from tests.e2e.conftest import LOCAL, Stack, starting

SETTLE_S = 10.0
"""Between two faults, in which everything must be well."""
MAX_AGE_S = 10.0
REFRESH_S = 2.0


def configured(directory: Path, port: int) -> Path:
    """A copy of the local configuration whose price is asked over HTTP. Returns its directory."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(LOCAL, directory, ignore=shutil.ignore_patterns("keys.yaml", "prices"))
    file = directory / "clusters.yaml"
    document = yaml.safe_load(file.read_text())
    (feed,) = document["price_feeds"]
    del feed["file"], feed["time_scale"]
    feed |= {
        "http": {
            "url": f"http://127.0.0.1:{port}/price",
            "value": "/usd_per_gpu_hour",
            "made_at": "/made_at",
        },
        "refresh_s": REFRESH_S,
        "timeout_s": REFRESH_S,
        "max_age_s": MAX_AGE_S,
    }
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return directory


def place(loaded: Loaded) -> Place:
    """Who plays which part."""
    rules = loaded.configuration
    bursting = next(w for w in rules.workloads if w.burst is not None)
    assert bursting.burst is not None
    cloud = bursting.burst.pools[0]
    home = next(p.name for p in rules.pools if p.name != cloud and p.min_replicas)
    return Place(bursting.name, home, cloud, rules.price_feeds[0].max_age_s)


class Background:
    """An event loop in a thread of its own: it serves the price feed and looks at the controller
    while the main thread does harm."""

    def __enter__(self) -> "Background":
        self._loop = asyncio.new_event_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    def watch(self, observer: Observer) -> None:
        async def begin() -> None:
            self._tasks.append(asyncio.create_task(observer.run()))

        self.do(begin())

    async def _stop(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def play(world: World, names: Sequence[str], seed: int, minutes: float) -> None:
    """One fault after the other. Two in a row that do not pass end it early."""
    mix, faults = random.Random(seed), deck(seed, names)
    end_s, done, in_vain = time.monotonic() + 60 * minutes, 0, 0
    time.sleep(SETTLE_S)
    while in_vain < 2:
        name = following(faults, names, done, end_s - time.monotonic())
        if name is None:
            break
        done += 1
        try:
            ACTS[name](world, mix)
            in_vain = 0
        except NotSeen as error:
            in_vain += 1
            world.say(f"{name}: {error}")
            world.feed.does = "truth"
            world.load.surge(False)
        time.sleep(SETTLE_S)
    world.load.surge(False)
    while in_vain < 2 and time.monotonic() < end_s:
        time.sleep(1)


def come_home(world: World, records: Records) -> None:
    """The load ends, the burst ends; what exists then, no rule may lack."""
    world.load.surge(False)
    records.open_requests = world.load.stop()
    try:
        world.wait("nothing is rented", world.is_home, REPLICA_S)
    except NotSeen as error:
        records.unowned = [str(error)]
        return
    token = secret(world.state, "ray-token")
    expected = inventory.expected_applications(world.loaded)
    deadline_s = time.monotonic() + 60
    while True:
        told = world.seen()
        with suppress(httpx.HTTPError):
            if told is not None:
                found = inventory.take(world.loaded, world.state, told, token)
                records.unowned = inventory.unowned(found, expected)
        # What a released replica leaves goes a little later than Serve says so.
        if records.unowned == [] or time.monotonic() > deadline_s:
            break
        time.sleep(2)
    records.events_lost = events_lost(world)


def events_lost(world: World) -> int | None:
    """Of those that the controller has in memory. None where it does not answer."""
    url = f"{world.loaded.configuration.controller.url}/v1/events"
    token = secret(world.state, "controller-token")
    try:
        answer = httpx.get(url, headers={"authorization": f"Bearer {token}"}, timeout=15)
        remembered = {event["id"] for event in answer.json()["events"]}
    except (httpx.HTTPError, ValueError, KeyError):
        return None
    # The newest are written with the next tick.
    time.sleep(5)
    path = world.state / "events.jsonl"
    files = [f for f in (path.with_name(f"{path.name}.{n}") for n in (1, 2, 3)) if f.exists()]
    written = {event["id"] for file in [path, *files] for event in events_after(file, 0)}
    return len(remembered - written)


@contextmanager
def clean_state(directory: Path) -> Iterator[Path]:
    """An empty state directory but for its models; what was started there is stopped again."""
    state = directory / "state"
    processes.stop_all(state)
    for entry in state.glob("*"):
        if entry.name != "models":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    state.mkdir(parents=True, exist_ok=True)
    os.environ["ORCHESTRATOR_STATE"] = str(state)
    try:
        yield state
    finally:
        processes.stop_all(state)


def run(directory: Path, names: Sequence[str], seed: int, minutes: float) -> Records:
    began_s = time.time()
    before = set(psutil.pids())
    feed = PriceFeed(LOCAL / "prices" / "market.csv", began_s)

    def say(what: str) -> None:
        out.print(f"{time.time() - began_s:6.0f} s  {what}", highlight=False, markup=False)

    with ExitStack() as stack:
        state = stack.enter_context(clean_state(directory))
        background = stack.enter_context(Background())
        background.do(feed.open())
        stack.callback(lambda: background.do(feed.close()))
        config = configured(directory / "config", feed.port)
        parts = place(load(config))
        records = Records(parts, began_s, answers=feed.answers)
        with starting(config, state) as (_, lines):
            said = list(takewhile(lambda line: "Ctrl-C" not in line, lines))
            if not any("Serving" in line for line in said):
                raise SystemExit("".join(said))
            say("the stack serves")
            loaded = load(config)
            keys = {f.name: f.read_text().strip() for f in (state / "keys").iterdir()}
            token = secret(state, "controller-token")
            observer = Observer(loaded.configuration.controller.url, token, time.time)
            background.watch(observer)
            records.samples = observer.samples
            with Load(Stack(loaded.configuration.gateway.url, keys), seed) as clients:
                records.requests = clients.requests
                world = World(loaded, state, parts, clients, feed, observer, say)
                records.faults = world.faults
                play(world, names, seed, minutes)
                say("the load ends")
                come_home(world, records)
            say("stopping")
        records.left = inventory.left_behind(state, before)
    return records


def write(
    directory: Path, records: Records, checks: Sequence[Check], about: dict[str, Any]
) -> None:
    """The report, what was recorded, and the timeline."""
    outcomes: dict[str, Counter[str]] = {}
    for request in records.requests:
        pool = verdict.pool_of(request, records)
        outcomes.setdefault(pool, Counter())[request.outcome] += 1
    report = {
        "about": about,
        "holds": all(check.holds for check in checks),
        "checks": [asdict(check) for check in checks],
        "faults": [asdict(fault) for fault in records.faults],
        "requests": {pool: dict(counts) for pool, counts in outcomes.items()},
        "bursts": [asdict(b) for b in verdict.bursts(records.samples, records.place.cloud_pool)],
        "longest_silence_s": verdict.silences(records),
        "unowned": records.unowned,
        "left": records.left,
    }
    (directory / "report.json").write_text(json.dumps(report, indent=2))
    for name in ("requests", "answers", "samples"):
        lines = (json.dumps(asdict(row)) for row in getattr(records, name))
        (directory / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    title = f"{len(records.faults)} faults, {len(records.requests)} requests, seed {about['seed']}"
    plot.timeline(directory / "timeline.png", records, title)


def show(records: Records) -> None:
    table = Table("fault", "on", "from", "to", "own pool's requests not whole", "note")
    for fault in records.faults:
        met = Counter(
            r.outcome
            for r in records.requests
            if verdict.failed(r) and verdict.excuse(r, records) is fault
        )
        table.add_row(
            fault.name,
            fault.pool or "no pool",
            f"{fault.began_s - records.began_s:.0f} s",
            f"{fault.ended_s - records.began_s:.0f} s" if fault.ended_s else "-",
            ", ".join(f"{n} {outcome}" for outcome, n in met.items()),
            escape(fault.note),
        )
    out.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(ACTS), default=list(ACTS))
    parser.add_argument("--out", type=Path, default=state_directory() / "chaos")
    asked = parser.parse_args()
    interrupt_on_polite_kill()
    directory = asked.out.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        records = run(directory, asked.only, asked.seed, asked.minutes)
    except KeyboardInterrupt:
        return 130
    checks = verdict.judge(records, asked.only)
    about = {"seed": asked.seed, "minutes": asked.minutes, "faults": asked.only}
    write(directory, records, checks, about)
    show(records)
    show_checks([replace(check, evidence=escape(check.evidence)) for check in checks])
    out.print(f"report, records and timeline: {directory}", soft_wrap=True)
    return 0 if all(check.holds for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
