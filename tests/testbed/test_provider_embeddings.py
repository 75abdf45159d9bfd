"""The scripted provider's embeddings and lists of models."""

from __future__ import annotations

import base64
import struct

import httpx
import pytest

from testbed.provider import ScriptedProvider, vector
from tests.testbed.provider_calls import CHAT, EMBEDDINGS, call


def test_each_input_has_a_vector_of_its_own(llm_provider: ScriptedProvider) -> None:
    answer = call(llm_provider, EMBEDDINGS, input=["a b", "c"]).json()
    assert [each["embedding"] for each in answer["data"]] == [vector("a b"), vector("c")]
    assert [each["index"] for each in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert vector("a b") != vector("c") and len(vector("c")) == 8


@pytest.mark.parametrize("given", ["c", ["c"], [[3, 4]], [3, 4]])
def test_an_input_is_a_text_or_tokens(llm_provider: ScriptedProvider, given: object) -> None:
    (only,) = call(llm_provider, EMBEDDINGS, input=given, dimensions=4).json()["data"]
    assert only["embedding"] == vector("c" if "c" in str(given) else [3, 4], 4)


def test_vectors_come_as_base64_if_asked_for(llm_provider: ScriptedProvider) -> None:
    llm_provider.vectors([0.5, -2.0])
    (only,) = call(llm_provider, EMBEDDINGS, input="a", encoding_format="base64").json()["data"]
    assert struct.unpack("<2f", base64.b64decode(only["embedding"])) == (0.5, -2.0)


def test_too_many_inputs_are_refused(llm_provider: ScriptedProvider) -> None:
    llm_provider.max_inputs = 2
    assert call(llm_provider, EMBEDDINGS, input=["a", "b"]).status_code == 200
    response = call(llm_provider, EMBEDDINGS, input=["a", "b", "c"])
    assert response.status_code == 400 and "maximum length 2" in response.text


def test_answers_of_a_model_are_kept_for_calls_of_it(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply("Hello")
    llm_provider.fail(503)
    assert call(llm_provider, EMBEDDINGS, input="a").status_code == 200
    assert "Hello" in call(llm_provider, CHAT).text
    assert call(llm_provider, EMBEDDINGS, input="a").status_code == 503
    llm_provider.reply("Hello")
    assert "Hello" in call(llm_provider, CHAT).text
    assert call(llm_provider, EMBEDDINGS, input="a").status_code == 200


def test_models_are_listed_for_each_vendor(llm_provider: ScriptedProvider) -> None:
    llm_provider.models = ["one", "two"]
    with httpx.Client(trust_env=False, verify=False) as client:
        openai = client.get(f"{llm_provider.openai_url}/models").json()
        anthropic = client.get(
            f"{llm_provider.anthropic_url}/v1/models", headers={"anthropic-version": "1"}
        ).json()
        assert client.get(f"{llm_provider.url}/nothing").status_code == 404
    assert ([each["id"] for each in openai["data"]], openai["object"]) == (["one", "two"], "list")
    assert ([each["id"] for each in anthropic["data"]], anthropic["last_id"]) == (["one", "two"], "two")
