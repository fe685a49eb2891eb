"""Where lines could run: what `decide()` allows, in its order, and what others have open there."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.batch.places import others_than, survey
from orchestrator.config.data_class import DataClass
from orchestrator.policy.decide import decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import BurstPhase, EndpointState
from orchestrator.policy.view import View
from tests.worlds import questions, small, snapshot

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
WORLD = small()
FACTS = Facts("assistant", "m")


def test_a_burst_pool_is_there_while_the_workload_bursts_and_is_not_paid_for() -> None:
    at_home = survey(FACTS, View(WORLD, snapshot(cloud_ready=1)), {}, {})
    assert [room.endpoint for room in at_home.rooms] == [HOME]
    bursting = View(WORLD, snapshot(cloud_ready=1, burst=BurstPhase.BURSTING))
    rooms = {room.endpoint: room for room in survey(FACTS, bursting, {}, {}).rooms}
    assert rooms.keys() == {HOME, CLOUD}
    assert rooms[HOME].paid_for
    assert not rooms[CLOUD].paid_for
    assert (rooms[HOME].usd_per_gpu_hour, rooms[CLOUD].usd_per_gpu_hour) == (0.5, 2.0)
    assert (rooms[HOME].slots, rooms[CLOUD].slots) == (4, 4)


def test_what_is_restricted_has_no_place_in_the_cloud() -> None:
    view = View(WORLD, snapshot(cloud_ready=1, burst=BurstPhase.BURSTING))
    for facts in (
        FACTS._replace(claimed=DataClass.RESTRICTED),
        FACTS._replace(snapshot_age_s=1e6),
        FACTS._replace(workload="records"),
    ):
        assert [room.endpoint for room in survey(facts, view, {}, {}).rooms] == [HOME]


def test_without_a_place_it_says_why() -> None:
    assert survey(FACTS, View(WORLD, snapshot(home_ready=0)), {}, {}).denied == "no_capacity"
    unknown = FACTS._replace(model="unheard-of")
    assert survey(unknown, View(WORLD, snapshot()), {}, {}).denied == "model_not_found"


def test_lines_are_told_from_requests_that_cannot_wait() -> None:
    state = EndpointState(ready_replicas=1, inflight={"me": 9, "other": 1}, waiting=1)
    busy = snapshot().model_copy(update={"endpoints": {HOME: state}})
    view = View(WORLD, busy, "me")
    inflight = WORLD.counts({HOME: 2})
    (room,) = survey(FACTS._replace(inflight=inflight), view, {HOME: 1}, {HOME: 1}).rooms
    assert room.urgent == 1
    assert room.queued
    (room,) = survey(FACTS._replace(inflight=inflight), view, {}, {HOME: 50}).rooms
    assert room.urgent == 2


@settings(deadline=None)
@given(questions())
def test_every_room_is_one_that_could_be_granted_and_none_is_missing(
    question: tuple[Facts, View],
) -> None:
    facts, view = question
    rooms = [room.endpoint for room in survey(facts, view, {}, {}).rooms]
    assert len(set(rooms)) == len(rooms)
    kept: list[str] = []
    for endpoint in rooms:
        alone = others_than([endpoint], facts.model, view)
        granted = decide(facts._replace(excluded={**alone, **facts.excluded}), view).grant
        assert granted is not None
        assert granted.candidate.endpoint == endpoint
        kept.append(endpoint)
    left = dict.fromkeys(rooms, "taken")
    assert decide(facts._replace(excluded={**left, **facts.excluded}), view).grant is None


@settings(deadline=None)
@given(questions(), st.data())
def test_a_line_never_leaves_the_places_that_it_was_given(
    question: tuple[Facts, View], data: st.DataObject
) -> None:
    facts, view = question
    kept = data.draw(st.sets(st.sampled_from(sorted(view.catalogue.candidates))))
    avoided = others_than(kept, facts.model, view)
    granted = decide(facts._replace(excluded=avoided), view).grant
    assert granted is None or granted.candidate.endpoint in kept
