"""Whatever owners do, die of and come back to: every line of a batch stands once in its results."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator.batch.batches import Batch, Batches, request_id_of
from orchestrator.batch.database import Database
from orchestrator.batch.files import File, Files
from orchestrator.batch.jobs import work_on
from orchestrator.batch.lines import Problem, answered
from orchestrator.batch.queue import LEASE_S, Answered, Kind, Line, PutBack, Queue, Used
from orchestrator.config.spec import Gateway

OWNERS = ("one", "two")
SPEC = Gateway(url="http://127.0.0.1:1", cluster="c")
WINDOW_S = 1000.0
CHAT = "/v1/chat/completions"
GONE = Problem("api_key_revoked", "The API key is revoked.")


@dataclass
class Owner:
    """A gateway, with a connection of its own and what it thinks that it holds."""

    name: str
    queue: Queue
    batches: Batches
    files: Files
    held: list[Line] = field(default_factory=list)


class Store(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        directory = Path(self.folder.name)
        self.databases = [Database(directory / "batch.sqlite") for _ in OWNERS]
        self.owners = [
            Owner(name, Queue(d), Batches(d), Files(d, directory))
            for name, d in zip(OWNERS, self.databases, strict=True)
        ]
        self.now_s = 1000.0
        self.sizes: dict[str, int] = {}
        self.accepted: Counter[str] = Counter()
        """Answers that the store has taken, by request id."""

    def teardown(self) -> None:
        """In the end everything is over, and has every line once."""
        self.now_s += LEASE_S + 1
        last = replace(self.owners[1], name="three")
        last.queue.beat(last.name, {}, self.now_s)
        for ended in ("validated", "written"):
            while batch := last.batches.take_job(last.name, self.now_s):
                work_on(batch, last.name, last.batches, last.files, SPEC)
            if ended == "validated":
                last.batches.expire(self.now_s + WINDOW_S)
        assert all(batch.ended_at_s is not None for batch in self.any.batches.list("w", 100))
        self.what_is_over_has_every_line_once()
        for database in self.databases:
            database.close()
        self.folder.cleanup()

    @property
    def any(self) -> Owner:
        return self.owners[0]

    owner = st.sampled_from((0, 1))

    @precondition(lambda self: len(self.sizes) < 3)
    @rule(size=st.integers(1, 4), good=st.sampled_from((True, True, False)), read=st.booleans())
    def a_batch_is_made(self, size: int, good: bool, read: bool) -> None:
        file_id, batch_id = f"file-{len(self.sizes)}", f"batch_{len(self.sizes)}"
        with self.any.files.writing() as draft:
            for n in range(size):
                line = {
                    "custom_id": f"{n}",
                    "method": "POST" if good else "GET",
                    "url": CHAT,
                    "body": {"model": "m"},
                }
                draft.write(orjson.dumps(line) + b"\n")
            draft.keep(file_id)
        until_s = self.now_s + 1e9
        file = File(file_id, "w", "batch", "f", draft.bytes, self.now_s, until_s, 0)
        self.any.files.add(file, 10**9)
        made = self.any.batches.create(
            Batch(
                batch_id,
                "w",
                "key",
                "{}",
                0,
                CHAT,
                file_id,
                "1000s",
                None,
                None,
                self.now_s,
                self.now_s + WINDOW_S,
            )
        )
        assert made.status == "validating"
        self.sizes[batch_id] = size if good else 0
        if read:
            self.an_owner_does_a_job(0, False)

    @rule(number=owner)
    def an_owner_is_heard(self, number: int) -> None:
        owner = self.owners[number]
        owner.queue.beat(owner.name, {}, self.now_s)

    @rule(
        number=owner,
        count=st.integers(1, 5),
        most=st.integers(1, 5),
        data_class=st.sampled_from((0, 0, 1)),
    )
    def an_owner_claims(self, number: int, count: int, most: int, data_class: int) -> None:
        owner = self.owners[number]
        owner.queue.beat(owner.name, {}, self.now_s)
        claimed = owner.queue.claim(
            owner.name, Kind("w", "m", data_class), "p/v", self.now_s, count, 10, most
        )
        assert len(claimed) <= count
        open_now = owner.queue.look(owner.name).waiting.values()
        assert not claimed or sum(waiting.open for waiting in open_now) <= most
        owner.held += claimed

    @precondition(lambda self: any(owner.held for owner in self.owners))
    @rule(data=st.data(), ok=st.booleans(), times=st.integers(1, 2))
    def a_claim_is_answered_in_time_or_late(
        self, data: st.DataObject, ok: bool, times: int
    ) -> None:
        """Twice by an owner that did not get the store's word."""
        owner = data.draw(st.sampled_from([o for o in self.owners if o.held]))
        line = data.draw(st.sampled_from(owner.held))
        if data.draw(st.booleans()):
            owner.held.remove(line)
        for _ in range(times):
            self._answer(owner, line, ok)

    def _answer(self, owner: Owner, line: Line, ok: bool) -> None:
        request_id = request_id_of(line.batch_id, line.number)
        result = answered(request_id, line.custom_id, 200 if ok else 400, {})
        answer = Answered(result, ok, Used(1, 0, 2, 0.5))
        self.accepted[request_id] += owner.queue.record([(line, answer)], self.now_s)

    @precondition(lambda self: any(owner.held for owner in self.owners))
    @rule(
        data=st.data(), after_s=st.sampled_from((0.0, 5.0)), data_class=st.sampled_from((None, 1))
    )
    def a_claim_is_put_back(
        self, data: st.DataObject, after_s: float, data_class: int | None
    ) -> None:
        owner = data.draw(st.sampled_from([o for o in self.owners if o.held]))
        line = data.draw(st.sampled_from(owner.held))
        owner.held.remove(line)
        owner.queue.record([(line, PutBack(after_s, data_class, tried=True))], self.now_s)

    @rule(number=owner)
    def an_owner_loses_track(self, number: int) -> None:
        """Killed and started again."""
        self.owners[number].held.clear()

    @rule(number=owner)
    def an_owner_leaves(self, number: int) -> None:
        owner = self.owners[number]
        owner.batches.drop_job(owner.name)
        owner.queue.leave(owner.name)

    @rule(s=st.sampled_from((1.0, LEASE_S + 1, WINDOW_S / 3)))
    def time_passes(self, s: float) -> None:
        self.now_s += s

    @rule(number=owner)
    def deadlines_are_kept(self, number: int) -> None:
        self.owners[number].batches.expire(self.now_s)

    @precondition(lambda self: self.sizes)
    @rule(data=st.data(), key_is_gone=st.booleans())
    def a_batch_is_ended_from_outside(self, data: st.DataObject, key_is_gone: bool) -> None:
        batch_id = data.draw(st.sampled_from(sorted(self.sizes)))
        if key_is_gone:
            self.any.batches.fail(batch_id, self.now_s, [GONE])
        else:
            self.any.batches.cancel("w", batch_id, self.now_s)

    @rule(number=owner, dies=st.booleans())
    def an_owner_does_a_job(self, number: int, dies: bool) -> None:
        owner = self.owners[number]
        owner.queue.beat(owner.name, {}, self.now_s)
        batch = owner.batches.take_job(owner.name, self.now_s)
        if batch is not None and not dies:
            work_on(batch, owner.name, owner.batches, owner.files, SPEC)

    @rule()
    def a_job_is_done_by_two_at_once(self) -> None:
        """By one that was thought dead, and its successor."""
        one, two = self.owners
        one.queue.beat(one.name, {}, self.now_s)
        batch = one.batches.take_job(one.name, self.now_s)
        if batch is None:
            return
        one.queue.leave(one.name)
        two.queue.beat(two.name, {}, self.now_s)
        again = two.batches.take_job(two.name, self.now_s)
        assert again is not None
        for owner, job in ((two, again), (one, batch)):
            work_on(job, owner.name, owner.batches, owner.files, SPEC)

    @rule()
    def it_is_tidied(self) -> None:
        self.any.batches.forget(self.now_s, 1e12)
        self.any.files.expire(self.now_s)

    @invariant()
    def no_line_is_answered_twice(self) -> None:
        assert all(count <= 1 for count in self.accepted.values())

    @invariant()
    def lines_are_counted_as_they_are(self) -> None:
        with self.databases[0].reading() as db:
            counted = db.execute(
                "SELECT batch_id, model, data_class, pending, open FROM kinds WHERE pending + open"
            ).fetchall()
            there = db.execute(
                "SELECT batch_id, model, data_class, sum(state = 'pending'), sum(state = 'open') "
                "FROM lines WHERE state IN ('pending', 'open') GROUP BY 1, 2, 3"
            ).fetchall()
        assert sorted(map(tuple, counted)) == sorted(map(tuple, there))

    @invariant()
    def what_is_over_has_every_line_once(self) -> None:
        for batch in self.any.batches.list("w", 100):
            counts = (batch.total, batch.completed, batch.failed)
            taken = [r for r, n in self.accepted.items() if n and r.startswith(batch.id)]
            assert batch.completed + batch.failed == len(taken)
            assert batch.completion_tokens == 2 * len(taken)
            if batch.ended_at_s is None:
                assert batch.output_file_id is batch.error_file_id is None
                continue
            output = list(self._lines(batch.output_file_id))
            error = list(self._lines(batch.error_file_id))
            assert len(output) == batch.completed, counts
            assert len(output) + len(error) == batch.total, counts
            ids = [line["custom_id"] for line in output + error]
            assert sorted(ids) == [f"{n}" for n in range(batch.total)]
            assert batch.total in (0, self.sizes[batch.id])
            assert (batch.status == "completed") <= (batch.completed + batch.failed == batch.total)

    def _lines(self, file_id: str | None) -> Iterator[dict[str, Any]]:
        if file_id is not None:
            with self.any.files.open(file_id) as content:
                for line in content:
                    yield orjson.loads(line)


Store.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestStore = Store.TestCase
