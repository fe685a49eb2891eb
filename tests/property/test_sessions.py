"""A conversation once raised stays raised, however it is told again."""

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.data_class import DataClass
from orchestrator.sessions.fingerprint import Hasher, Said, said_in
from orchestrator.sessions.ratchet import Ratchet
from orchestrator.sessions.store import SessionsUnavailable
from orchestrator.sessions.turns import Turn, turns
from orchestrator.sessions.winnowing import QUOTE, STRETCH

KEY = b"a key"
FEW = settings(max_examples=200, deadline=None)
SECRET = (
    "The board has decided to close the plant in the north by the end of next year and to move "
    "all of its machines to the new site, which nobody outside of this room knows of."
)
HISTORY = [167532217227121280]
NAME = [4990952303200455066]
TEXTS = {
    64425435880376581,
    756465263804522576,
    958078547860761643,
    972540888893957845,
    7504113392379273754,
}
words = st.text("abcdefghij äß", min_size=1, max_size=300)
roles = st.sampled_from(["user", "assistant", "tool"])
conversations = st.lists(st.tuples(roles, words), min_size=1, max_size=6)


def spoken(*texts: str) -> list[Said]:
    return said_in([Turn("user", text) for text in texts])


def chat(*said: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in said]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.sqlite"


def fresh() -> Ratchet:
    return Ratchet(Path(tempfile.mkdtemp()) / "sessions.sqlite", KEY)


def recognized(ratchet: Ratchet, body: dict[str, Any], session: str = "") -> DataClass:
    return ratchet.recognize("w", session, body).data_class


@FEW
@given(conversations, words, conversations)
def test_whoever_sends_an_answered_history_again_goes_on_with_it(
    said: list[tuple[str, str]], answer: str, more: list[tuple[str, str]]
) -> None:
    ratchet = fresh()
    conversation = ratchet.recognize("w", "", chat(*said))
    ratchet.keep(conversation, DataClass.RESTRICTED)
    ratchet.keep_answer(conversation, Turn("assistant", answer), DataClass.RESTRICTED)
    again = chat(("system", "Be brief."), *said, ("assistant", answer), *more)
    assert recognized(ratchet, again) is DataClass.RESTRICTED


@FEW
@given(st.data(), st.text("abcdefgh ", max_size=200), st.text("abcdefgh ", max_size=200))
def test_a_long_enough_quote_of_any_part_is_recognized(
    data: st.DataObject, before: str, after: str
) -> None:
    text = data.draw(st.text("abcdefghijklmnopqrstuvwxyz", min_size=QUOTE, max_size=900))
    start = data.draw(st.integers(0, len(text) - QUOTE))
    ratchet = fresh()
    ratchet.keep(ratchet.recognize("w", "", chat(("user", text))), DataClass.CONFIDENTIAL)
    quote = text[start : start + QUOTE]
    quoted = "\n> ".join([before, quote[:30], quote[30:].upper(), after])
    assert recognized(ratchet, chat(("user", quoted))) is DataClass.CONFIDENTIAL


def test_a_session_is_known_by_its_id_whatever_is_left_of_its_history(path: Path) -> None:
    ratchet = Ratchet(path, KEY)
    first = ratchet.recognize("w", "s-1", chat(("user", "hi")))
    ratchet.keep(first, DataClass.RESTRICTED)
    assert recognized(ratchet, chat(("user", "something else")), "s-1") is DataClass.RESTRICTED
    assert recognized(ratchet, chat(("user", "something else")), "s-2") is DataClass.PUBLIC
    other = ratchet.recognize("another workload", "s-1", chat(("user", "something else")))
    assert other.data_class is DataClass.PUBLIC


def test_another_gateway_knows_at_once_and_so_does_one_after_a_restart(path: Path) -> None:
    one, other = Ratchet(path, KEY), Ratchet(path, KEY)
    one.keep(one.recognize("w", "", chat(("user", SECRET))), DataClass.RESTRICTED)
    assert recognized(other, chat(("user", f"You said: {SECRET}"))) is DataClass.RESTRICTED
    one.close()
    assert recognized(Ratchet(path, KEY), chat(("user", SECRET))) is DataClass.RESTRICTED


def test_a_class_never_falls(path: Path) -> None:
    ratchet = Ratchet(path, KEY)
    conversation = ratchet.recognize("w", "s", chat(("user", SECRET)))
    ratchet.keep(conversation, DataClass.RESTRICTED)
    ratchet.keep(conversation, DataClass.CONFIDENTIAL)
    assert recognized(ratchet, chat(("user", SECRET))) is DataClass.RESTRICTED


def test_what_was_said_in_tool_calls_and_results_counts() -> None:
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "mail", "arguments": SECRET}}],
    }
    ratchet = fresh()
    ratchet.keep(ratchet.recognize("w", "", {"messages": [called]}), DataClass.RESTRICTED)
    result = {"messages": [{"role": "tool", "tool_call_id": "1", "content": SECRET}]}
    assert recognized(ratchet, result) is DataClass.RESTRICTED
    assert recognized(ratchet, {"prompt": [SECRET]}) is DataClass.RESTRICTED
    assert recognized(ratchet, {"input": SECRET}) is DataClass.RESTRICTED


def test_what_everybody_says_raises_nobody() -> None:
    ratchet = fresh()
    template = "Sum up the following letter in three sentences, in the language that it is in. " * 2
    for number in range(3):
        ratchet.seen_unraised(ratchet.recognize("w", "", chat(("user", f"{template} {number}"))))
    raised = ratchet.recognize("w", "", chat(("user", template + SECRET)))
    ratchet.keep(raised, DataClass.RESTRICTED)
    assert recognized(ratchet, chat(("user", template + "a harmless one"))) is DataClass.PUBLIC
    assert recognized(ratchet, chat(("user", SECRET))) is DataClass.RESTRICTED


def test_what_one_conversation_repeats_in_every_turn_is_no_template() -> None:
    ratchet = fresh()
    history = [("user", SECRET)]
    for number in range(5):
        ratchet.seen_unraised(ratchet.recognize("w", "", chat(*history)))
        history += [("assistant", f"Answer {number}."), ("user", f"Question {number}?")]
    ratchet.keep(ratchet.recognize("w", "", chat(*history)), DataClass.RESTRICTED)
    assert recognized(ratchet, chat(("user", SECRET))) is DataClass.RESTRICTED


def test_many_rare_texts_do_not_make_a_secret_common() -> None:
    ratchet = fresh()
    rare = random.Random(0)
    for _ in range(60):
        text = "".join(rare.choices("abcdefghijklmnopqrstuvwxyz", k=200_000))
        ratchet.seen_unraised(ratchet.recognize("w", "", chat(("user", text))))
    text = "".join(rare.choices("abcdefghijklmnopqrstuvwxyz", k=50_000))
    raised = ratchet.recognize("w", "", chat(("user", text)))
    ratchet.keep(raised, DataClass.RESTRICTED)
    places = [rare.randrange(len(text) - 300) for _ in range(200)]
    found = [recognized(ratchet, chat(("user", text[p : p + 300]))) for p in places]
    assert found.count(DataClass.RESTRICTED) == len(places)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [], "prompt": SECRET},
        {"prompt": "Go on.", "suffix": SECRET},
        {"messages": [{"role": "system", "content": f"Known so far: {SECRET}"}]},
        {"messages": [], "documents": [{"text": SECRET}]},
        {"messages": [{"role": "assistant", "content": "", "reasoning_content": SECRET}]},
    ],
)
def test_a_quote_is_found_wherever_a_request_has_it(body: dict[str, Any]) -> None:
    ratchet = fresh()
    ratchet.keep(ratchet.recognize("w", "", chat(("user", SECRET))), DataClass.RESTRICTED)
    assert recognized(ratchet, body) is DataClass.RESTRICTED


def test_reasoning_that_a_client_leaves_out_does_not_hide_its_conversation() -> None:
    ratchet = fresh()
    first = ratchet.recognize("w", "", chat(("user", "hi")))
    ratchet.keep(first, DataClass.RESTRICTED)
    ratchet.keep_answer(first, Turn("assistant", "Hello.", aside="Hm."), DataClass.RESTRICTED)
    later = chat(("user", "hi"), ("assistant", "Hello."), ("user", "And?"))
    assert recognized(ratchet, later) is DataClass.RESTRICTED


def test_a_system_prompt_is_nobodys_secret() -> None:
    ratchet = fresh()
    raised = ratchet.recognize("w", "", chat(("system", SECRET), ("user", "a question")))
    ratchet.keep(raised, DataClass.RESTRICTED)
    asked = chat(("system", SECRET), ("user", "another question"))
    assert recognized(ratchet, asked) is DataClass.PUBLIC


def test_a_store_that_fails_says_so_and_never_that_nothing_was_raised(path: Path) -> None:
    ratchet = Ratchet(path, KEY)
    conversation = ratchet.recognize("w", "", chat(("user", SECRET)))
    ratchet.close()
    with pytest.raises(SessionsUnavailable):
        ratchet.recognize("w", "", chat(("user", SECRET)))
    with pytest.raises(SessionsUnavailable):
        ratchet.keep(conversation, DataClass.RESTRICTED)
    path.write_text("not a database")
    with pytest.raises(SessionsUnavailable):
        Ratchet(path, KEY)


def test_without_the_key_a_text_cannot_be_tried() -> None:
    (one,), (other,) = (Hasher(key).texts(spoken(SECRET)) for key in (b"one", b"other"))
    assert not set(one) & set(other)


def test_what_an_earlier_release_has_stored_is_found() -> None:
    said = said_in([Turn("user", f"{SECRET} Größe: ½ ſtück"), Turn("assistant", "Known.")])
    hasher = Hasher(KEY)
    assert hasher.history(said).tolist() == HISTORY
    assert set(hasher.texts(said)[0].tolist()) == TEXTS
    assert hasher.name("w", "s").tolist() == NAME


letters = st.text("abcdefgh\0. \n-Ä", max_size=400)


@FEW
@given(st.lists(st.lists(letters, max_size=4), max_size=4))
def test_texts_read_together_are_found_as_each_alone(groups: list[list[str]]) -> None:
    hasher = Hasher(KEY)
    together = hasher.texts(*(spoken(*group) for group in groups))
    alone = [[hasher.texts(spoken(text))[0] for text in group] for group in groups]
    assert [set(found) for found in together] == [
        {fingerprint for found in group for fingerprint in found} for group in alone
    ]


def test_no_quote_spans_two_texts_wherever_they_are_cut_to_be_read() -> None:
    hasher, rare = Hasher(KEY), random.Random(0)
    texts = ["".join(rare.choices("abcdefgh", k=rare.randrange(QUOTE, 900))) for _ in range(200)]
    assert sum(map(len, texts)) > 2 * STRETCH
    (together,) = hasher.texts(spoken(*texts))
    alone = {fingerprint for text in texts for fingerprint in hasher.texts(spoken(text))[0]}
    assert set(together) == alone


def test_a_quote_is_found_wherever_a_long_text_is_cut_to_be_read() -> None:
    text = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=3 * STRETCH))
    # As the second of two texts it is cut elsewhere.
    for texts in ([text], ["x" * QUOTE, text]):
        (whole,) = Hasher(KEY).texts(spoken(*texts))
        for near in (0, STRETCH, 2 * STRETCH, len(text) - QUOTE):
            for start in range(max(0, near - 2 * QUOTE), min(near + 2, len(text) - QUOTE) + 1):
                (quoted,) = Hasher(KEY).texts(spoken(text[start : start + QUOTE]))
                assert set(quoted) & set(whole)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@FEW
@given(st.dictionaries(st.sampled_from(["messages", "prompt", "input", "model"]), json))
def test_no_shape_of_a_body_is_too_odd(body: dict[str, Any]) -> None:
    said = said_in(turns(body))
    Hasher(KEY).texts(said)
    Hasher(KEY).history(said)


def test_a_request_that_is_asked_again_makes_no_template_of_its_text() -> None:
    ratchet = fresh()
    for _ in range(5):
        ratchet.seen_unraised(ratchet.recognize("w", "", chat(("user", SECRET))))
    ratchet.keep(ratchet.recognize("w", "", chat(("user", SECRET))), DataClass.RESTRICTED)
    assert recognized(ratchet, chat(("user", f"Somebody wrote: {SECRET}"))) is DataClass.RESTRICTED
