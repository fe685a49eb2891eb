"""What answers of price feeds are read as."""

import json
from typing import Any

import pytest

from orchestrator.config.spec import HttpSource, PrometheusSource
from orchestrator.signals.prices import FeedError, Said
from orchestrator.signals.prices_http import read_json, read_prometheus


def http(content: str, value: str = "", made_at: str | None = None) -> Said:
    source = HttpSource(url="http://127.0.0.1", value=value, made_at=made_at)
    return read_json(source, content.encode())


def vector(*series: tuple[dict[str, str], str]) -> bytes:
    result = [{"metric": labels, "value": [1000.5, figure]} for labels, figure in series]
    data = {"resultType": "vector", "result": result}
    return json.dumps({"status": "success", "data": data}).encode()


def prometheus(content: bytes, pool_label: str | None = None) -> Said:
    return read_prometheus(PrometheusSource(url="http://127.0.0.1", pool_label=pool_label), content)


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        (2.5, ""),
        ("2.5", ""),
        ({"a": {"b": [0, {"usd": "2.5"}]}}, "/a/b/1/usd"),
        ({"a/b": {"m~n": 2.5}}, "/a~1b/m~0n"),
        ({"": 2.5}, "/"),
    ],
)
def test_a_pointer_leads_to_the_price(document: Any, pointer: str) -> None:
    assert http(json.dumps(document), pointer).of("any") == 2.5


def test_an_object_has_a_price_for_each_pool() -> None:
    said = http('{"p": {"a": 1, "b": "2", "c": null, "d": {"usd": 3}}}', "/p")
    assert [said.of(pool) for pool in "abcd"] == [1, 2, None, None]


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        ("", ""),
        ("<html>", ""),
        ("NaN", ""),
        ("[" * 100_000, ""),
        ("true", ""),
        ('"1_000"', ""),
        ('"0x2"', ""),
        ("null", ""),
        ('{"a": 1}', "/b"),
        ("[1]", "/-1"),
        ("[1]", "/01"),
        ("[1]", "/1"),
        ("1", "/0"),
    ],
)
def test_what_is_no_price_is_said_to_be_none(content: str, pointer: str) -> None:
    with pytest.raises(FeedError):
        http(content, pointer)


@pytest.mark.parametrize(
    "moment", ['"1970-01-01T00:16:40Z"', '"1970-01-01T01:16:40+01:00"', "1000"]
)
def test_a_feed_says_when_its_price_was_made(moment: str) -> None:
    assert http(f'{{"usd": 2, "at": {moment}}}', "/usd", "/at").made_at_s == 1000


@pytest.mark.parametrize(
    "moment", ['"1970-01-01T00:16:40"', '"soon"', "null", "[]", '"9999-99-99"']
)
def test_a_moment_that_is_none_is_an_error(moment: str) -> None:
    with pytest.raises(FeedError):
        http(f'{{"usd": 2, "at": {moment}}}', "/usd", "/at")


def test_a_query_gives_one_figure_with_its_time() -> None:
    assert prometheus(vector(({"node": "a"}, "2.5"))) == Said(2.5, 1000.5)
    scalar = b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "2.5"]}}'
    assert prometheus(scalar) == Said(2.5, 1)


def test_a_label_says_whose_figure_it_is() -> None:
    said = prometheus(vector(({"pool": "a"}, "1"), ({"pool": "b"}, "2"), ({}, "3")), "pool")
    assert [said.of(pool) for pool in "abc"] == [1, 2, None]


@pytest.mark.parametrize(
    ("content", "label", "mend"),
    [
        (vector(), None, "finds nothing"),
        (vector(({}, "1"), ({}, "2")), None, "aggregate"),
        (vector(({"pool": "a"}, "1"), ({"pool": "a"}, "2")), "pool", "aggregate"),
        (b'{"status": "error", "error": "secret"}', None, "no answer to a query"),
        (b'{"status": "success", "data": {"resultType": "matrix", "result": []}}', None, "vector"),
        (b'{"status": "success", "data": {"resultType": "scalar", "result": [1]}}', None, "query"),
        (b'{"status": "success", "data": {"resultType": "vector", "result": [1]}}', None, "query"),
        (b"[]", None, "no answer"),
    ],
)
def test_what_is_no_figure_is_told_with_its_mend(
    content: bytes, label: str | None, mend: str
) -> None:
    with pytest.raises(FeedError, match=mend):
        prometheus(content, label)


def test_a_figure_that_is_not_a_number_is_passed_on_as_that() -> None:
    said = prometheus(vector(({}, "NaN"))).of("a")
    assert said is not None
    assert said != said
    assert prometheus(vector(({}, "+Inf"))).of("a") == float("inf")
