"""Embeddings, rankings and scores of a real model, through the gateway."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import Stack, serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ENGINE = "http://127.0.0.1:8003/pools/cpu/search-embed"
TEXTS = ["class Thread:", "def main("]


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Keys are written beside the configuration.
    here = tmp_path_factory.mktemp("search")
    directory = shutil.copytree(Path(__file__).parent / "clusters" / "search", here / "clusters")
    state = here / "state"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRATOR_STATE", str(state))
        with serving(directory, state) as stack:
            yield stack


def ask(search: Stack, path: str, **body: Any) -> dict[str, Any]:
    """Through the gateway; the engine itself says the same."""
    asked = {"model": "search"} | body
    headers = {"authorization": f"Bearer {search.keys['anyone']}"}
    ours = httpx.post(f"{search.url}{path}", json=asked, headers=headers, timeout=60)
    assert ours.status_code == 200, ours.text
    assert ours.headers["x-orchestrator-variant"] == "search-embed"
    theirs = httpx.post(f"{ENGINE}{path}", json=asked, timeout=60).json()
    answer: dict[str, Any] = ours.json()
    assert answer["usage"] == theirs["usage"]
    return answer


@pytest.mark.parametrize("encoding", [openai.omit, "float", "base64"])
def test_the_openai_client_embeds(search: Stack, encoding: Any) -> None:
    made = search.client("anyone").embeddings.create(
        model="search", input=[*TEXTS, TEXTS[0]], encoding_format=encoding
    )
    theirs = httpx.post(
        f"{ENGINE}/v1/embeddings", json={"model": "search", "input": TEXTS}, timeout=60
    ).json()
    assert [e.index for e in made.data] == [0, 1, 2]
    if encoding != "base64":
        first, other, again = (e.embedding for e in made.data)
        assert first == pytest.approx(theirs["data"][0]["embedding"], abs=1e-2)
        assert first == pytest.approx(again, abs=1e-2)
        assert first != pytest.approx(other, abs=1e-2)
    counted = httpx.post(
        f"{ENGINE}/tokenize", json={"model": "search", "prompt": TEXTS[0]}, timeout=60
    ).json()["count"]
    assert made.usage.prompt_tokens == theirs["usage"]["prompt_tokens"] + counted


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_ranked(search: Stack, path: str) -> None:
    answer = ask(search, path, query="def main(", documents=TEXTS)
    assert [result["index"] for result in answer["results"]] == [1, 0]
    best, other = (result["relevance_score"] for result in answer["results"])
    assert best == pytest.approx(1, abs=1e-2)
    assert other < best


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_pairs_are_scored(search: Stack, path: str) -> None:
    answer = ask(search, path, queries="def main(", documents=TEXTS)
    other, same = (pair["score"] for pair in answer["data"])
    assert same == pytest.approx(1, abs=1e-2)
    assert other < same


def test_a_model_that_embeds_does_not_chat(search: Stack) -> None:
    client = search.client("anyone")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(
            model="search", messages=[{"role": "user", "content": "hello"}]
        )
    assert caught.value.code == "endpoint_not_offered"


def test_what_the_engine_finds_wrong_is_said_in_its_words(search: Stack) -> None:
    asked: dict[str, Any] = {"input": "x " * 5000}
    with pytest.raises(openai.BadRequestError) as caught:
        search.client("anyone").embeddings.create(model="search", **asked)
    theirs = httpx.post(f"{ENGINE}/v1/embeddings", json={"model": "search"} | asked, timeout=60)
    assert caught.value.body["message"] == theirs.json()["error"]["message"]  # type: ignore[index]
