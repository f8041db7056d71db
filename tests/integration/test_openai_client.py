"""Every field that is honoured, asked for with the real `openai` client of a real server."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import torch

from faasmoe.model.checkpoint.source import resolve
from tests.integration.servers import MODEL, PROMPT, Server, metric, wait_for_metric

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me of the sea."}]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve(None).folder)


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(resolve(None).folder, dtype=torch.float32).eval()


def complete(client: openai.OpenAI, **fields: Any) -> Any:
    asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, **fields}
    vllm = {
        name: asked.pop(name) for name in ("top_k", "min_p", "repetition_penalty", "ignore_eos") if name in asked
    }
    return client.completions.create(**asked, extra_body=vllm)


def chat(client: openai.OpenAI, **fields: Any) -> Any:
    asked = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 8, "temperature": 0, **fields}
    vllm = {
        name: asked.pop(name) for name in ("top_k", "min_p", "repetition_penalty", "ignore_eos") if name in asked
    }
    return client.chat.completions.create(**asked, extra_body=vllm)


def text_of(answer: Any) -> str:
    choice = answer.choices[0]
    return choice.text if hasattr(choice, "text") else choice.message.content


BOTH = pytest.mark.parametrize("ask", [complete, chat])


def test_a_completion_is_what_transformers_generates(
    client: openai.OpenAI, tokenizer: Any, reference: torch.nn.Module
) -> None:
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    wanted = reference.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert text_of(complete(client, max_tokens=12)) == tokenizer.decode(wanted)


@BOTH
@pytest.mark.parametrize("kept", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-9}])
def test_what_leaves_one_token_is_greedy(client: openai.OpenAI, ask: Any, kept: dict) -> None:
    assert text_of(ask(client, temperature=1.5, **kept)) == text_of(ask(client))


@BOTH
def test_a_seed_repeats_the_text_and_choices_differ(client: openai.OpenAI, ask: Any) -> None:
    hot = {"temperature": 1.2, "top_k": 100, "min_p": 0.001, "seed": 11}
    four, again, one = (ask(client, **hot, n=n) for n in (4, 4, 1))
    assert [c.index for c in four.choices] == [0, 1, 2, 3]
    four_texts = [c.model_dump(exclude={"index"}) for c in four.choices]
    assert four_texts == [c.model_dump(exclude={"index"}) for c in again.choices]
    assert text_of(one) == text_of(four)
    assert len({str(text) for text in four_texts}) == 4
    assert four.usage.completion_tokens == 4 * one.usage.completion_tokens
    assert four.usage.prompt_tokens == one.usage.prompt_tokens
    assert text_of(ask(client, **{**hot, "seed": 12})) != text_of(one)


@BOTH
def test_n_of_a_stream(client: openai.OpenAI, ask: Any) -> None:
    hot = {"temperature": 1.2, "seed": 5, "n": 3}
    texts = ["", "", ""]
    *chunks, last = ask(client, **hot, stream=True, stream_options={"include_usage": True})
    for chunk in chunks:
        choice = chunk.choices[0]
        texts[choice.index] += choice.text if ask is complete else choice.delta.content
    whole = ask(client, **hot)
    assert texts == [c.text if ask is complete else c.message.content for c in whole.choices]
    assert (last.choices, last.usage) == ([], whole.usage)


@BOTH
def test_penalties_drive_out_what_was_said(client: openai.OpenAI, ask: Any, tokenizer: Any) -> None:
    def repeated(**fields: Any) -> int:
        answer = ask(client, logit_bias=favour, **{length: 24}, **fields)
        ids = tokenizer.encode(text_of(answer))
        return len(ids) - len(set(ids))

    length = "max_tokens" if ask is complete else "max_completion_tokens"
    favour = {str(tokenizer.encode(" sea")[0]): 4}  # so that there is something to drive out
    plain = repeated()
    assert plain > 0
    for name in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
        assert repeated(**{name: 2.0}) < plain


@BOTH
def test_logit_bias_forces_and_forbids(client: openai.OpenAI, ask: Any, tokenizer: Any) -> None:
    [sea] = tokenizer.encode(" sea")
    assert text_of(ask(client, logit_bias={str(sea): 100})) == " sea" * 8
    first = tokenizer.encode(text_of(ask(client)))[0]
    assert tokenizer.encode(text_of(ask(client, logit_bias={str(first): -100})))[0] != first


@BOTH
def test_ignore_eos_goes_on(client: openai.OpenAI, ask: Any, tokenizer: Any) -> None:
    ends = {"logit_bias": {str(tokenizer.eos_token_id): 100}}
    ended = ask(client, **ends)
    assert (text_of(ended), ended.choices[0].finish_reason, ended.usage.completion_tokens) == ("", "stop", 1)
    went_on = ask(client, **ends, ignore_eos=True)
    assert (went_on.choices[0].finish_reason, went_on.usage.completion_tokens) == ("length", 8)


@BOTH
@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_string_across_tokens(client: openai.OpenAI, ask: Any, stream: bool) -> None:
    text = text_of(ask(client))
    stop = [text[3:9], "never said"]
    if not stream:
        answer = ask(client, stop=stop)
        assert (text_of(answer), answer.choices[0].finish_reason) == (text[: text.index(stop[0])], "stop")
        return
    chunks = [chunk.choices[0] for chunk in ask(client, stop=stop, stream=True)]
    said = "".join(c.text if ask is complete else c.delta.content for c in chunks)
    assert (said, chunks[-1].finish_reason) == (text[: text.index(stop[0])], "stop")


def test_completion_logprobs_are_those_of_transformers(
    client: openai.OpenAI, tokenizer: Any, reference: torch.nn.Module
) -> None:
    answer = complete(client, echo=True, logprobs=3, temperature=0.7, seed=3)
    choice, told = answer.choices[0], answer.choices[0].logprobs
    assert choice.text.startswith(PROMPT)
    assert "".join(told.tokens) == choice.text
    assert told.text_offset == [len("".join(told.tokens[:i])) for i in range(len(told.tokens))]
    assert len(told.tokens) == answer.usage.total_tokens
    assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None)
    ids = tokenizer.encode(PROMPT) + tokenizer.encode(choice.text[len(PROMPT) :])
    assert len(ids) == len(told.tokens)
    with torch.no_grad():
        wanted = torch.log_softmax(reference(torch.tensor([ids])).logits[0], -1)
    for i in range(1, len(ids)):
        row = wanted[i - 1]
        assert told.token_logprobs[i] == pytest.approx(float(row[ids[i]]), abs=1e-3)
        likeliest = row.topk(3)
        best = {tokenizer.decode([t]): v for t, v in zip(*map(torch.Tensor.tolist, likeliest[::-1]), strict=True)}
        assert told.top_logprobs[i] == pytest.approx({**best, told.tokens[i]: told.token_logprobs[i]}, abs=1e-3)


def test_echo_alone_generates_nothing(client: openai.OpenAI) -> None:
    answer = complete(client, echo=True, max_tokens=0, logprobs=0)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (PROMPT, "length")
    assert answer.usage.completion_tokens == 0
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.prompt_tokens


def test_streamed_completion_logprobs_are_those_of_the_whole(client: openai.OpenAI) -> None:
    asked = {"echo": True, "logprobs": 2, "prompt": [PROMPT, "The king"], "n": 2, "temperature": 1, "seed": 2}
    whole = complete(client, **asked)
    chunks = [chunk.choices[0] for chunk in complete(client, **asked, stream=True)]
    for choice in whole.choices:
        mine = [c for c in chunks if c.index == choice.index]
        assert "".join(c.text for c in mine) == choice.text
        for name in ("tokens", "text_offset"):
            assert [v for c in mine for v in getattr(c.logprobs, name)] == getattr(choice.logprobs, name)
        logprobs = [v for c in mine for v in c.logprobs.token_logprobs]
        assert logprobs[1:] == pytest.approx(choice.logprobs.token_logprobs[1:], abs=1e-4)


@pytest.mark.parametrize("stream", [True, False])
def test_chat_logprobs(client: openai.OpenAI, stream: bool) -> None:
    asked = {"logprobs": True, "top_logprobs": 2}
    if stream:
        chunks = [chunk.choices[0] for chunk in chat(client, **asked, stream=True)]
        content = [entry for c in chunks for entry in c.logprobs.content]
        text = "".join(c.delta.content for c in chunks)
    else:
        choice = chat(client, **asked).choices[0]
        content, text = choice.logprobs.content, choice.message.content
    assert bytes(byte for entry in content for byte in entry.bytes).decode() == text
    for entry in content:
        assert len(entry.top_logprobs) == 2
        assert entry.top_logprobs[0].token == entry.token  # it was greedy
        assert entry.top_logprobs[0].logprob == entry.logprob >= entry.top_logprobs[1].logprob
        assert math.exp(entry.logprob) <= 1


def test_an_answer_goes_back_into_the_conversation(client: openai.OpenAI) -> None:
    answer = chat(client).choices[0].message
    more = chat(client, messages=[*MESSAGES, answer, {"role": "user", "content": "And then?"}])
    assert more.usage.prompt_tokens > chat(client).usage.prompt_tokens


def test_a_client_that_leaves_while_it_waits_frees_its_place(server: Server, client: openai.OpenAI) -> None:
    complete(client)  # warm
    assert wait_for_metric(server, "faasmoe_num_requests_running", 0)
    before = metric(server, "faasmoe_generation_tokens_total")
    asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 2000, "ignore_eos": True}
    request = httpx.Request("POST", f"{server.url}/v1/completions", json=asked)
    lines = ["POST /v1/completions HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    with socket.create_connection((request.url.host, request.url.port)) as left:
        left.sendall("\r\n".join([*lines, "", ""]).encode() + request.content)
        assert wait_for_metric(server, "faasmoe_num_requests_running", 1)
    assert wait_for_metric(server, "faasmoe_num_requests_running", 0)
    assert metric(server, "faasmoe_generation_tokens_total") < before + 1000
