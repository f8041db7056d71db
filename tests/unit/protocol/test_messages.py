from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import fields

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import MessageError
from faasmoe.protocol.config import About, EngineOptions, ServingConfig
from faasmoe.protocol.errors import SentError
from faasmoe.protocol.messages import (
    HEADER,
    LARGEST,
    VERSION,
    Accepted,
    Cancel,
    Failed,
    Message,
    Pieces,
    Ready,
    Refused,
    ServedTokens,
    Start,
    Starting,
    StatsReport,
    StatsRequest,
    Submit,
    body_length,
    encode,
    pack,
    read_about,
    read_answer,
    read_failure,
    read_order,
    read_start,
)
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams, ScoredToken, TokenLogprob
from faasmoe.protocol.stats import Distribution, EngineStats

numbers = st.integers(0, 2**63 - 1)
reals = st.floats(allow_nan=False)
texts = st.text()  # without surrogates, as hypothesis has it
params = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 2**63),
    temperature=st.floats(0, 2),
    top_p=st.floats(0.01, 1),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.text(min_size=1), max_size=4).map(tuple),
    logit_bias=st.lists(st.tuples(numbers, st.floats(-100, 100))).map(tuple),
    logprobs=st.none() | st.integers(0, 20),
    echo=st.booleans(),
)
requests = st.builds(GenerationRequest, texts, st.lists(numbers).map(tuple), params, tenant=texts)
candidates = st.builds(ScoredToken, numbers, st.binary(), st.none() | reals)
logprobs = st.builds(TokenLogprob, candidates, st.lists(candidates).map(tuple), numbers)
pieces = st.builds(
    Piece,
    texts,
    numbers,
    st.sampled_from([None, "stop", "length"]),
    error=st.none() | texts,
    logprobs=st.lists(logprobs).map(tuple),
    cached_tokens=numbers,
    queue_seconds=reals,
)
configs = st.builds(
    ServingConfig,
    texts,
    texts,
    block_size=st.none() | numbers,
    dtype=texts,
    quantize=st.none() | texts,
    max_model_len=st.none() | numbers,
    engine=st.builds(EngineOptions),
)
failures = st.builds(SentError, texts, texts, st.dictionaries(texts, st.none() | texts | reals))
stats = st.builds(
    EngineStats,
    running=numbers,
    waiting=numbers,
    step_seconds=st.lists(numbers, min_size=3, max_size=3).map(
        lambda counts: Distribution((0.5, 1.0), counts, 2.5)
    ),
    phases=st.dictionaries(texts, reals),
    engine=st.dictionaries(texts, reals),
)
orders = st.one_of(
    st.builds(Submit, numbers, st.lists(requests, max_size=3).map(tuple)),
    st.builds(Cancel, st.lists(texts).map(tuple)),
    st.just(StatsRequest()),
    st.builds(ServedTokens, st.dictionaries(texts, numbers)),
)
answers = st.one_of(
    st.just(Starting()),
    st.just(Ready()),
    st.builds(Failed, failures),
    st.builds(Accepted, numbers),
    st.builds(Refused, numbers, failures),
    st.builds(Pieces, st.lists(st.tuples(texts, pieces), max_size=3).map(tuple)),
    st.builds(StatsReport, stats, st.dictionaries(texts, reals), st.dictionaries(texts, numbers)),
)


starts = st.builds(Start, configs, texts, texts, texts, numbers)
abouts = st.builds(About, texts, numbers, numbers, numbers, numbers)


def parts(message: Message) -> tuple[bytes, bytes]:
    frame = pack(message)
    return frame[: HEADER.size], frame[HEADER.size :]


@given(orders)
def test_orders_arrive_as_they_were_sent(message: Message) -> None:
    header, body = parts(message)
    assert body_length(header) == len(body)
    assert read_order(body) == message


@given(answers)
def test_answers_arrive_as_they_were_sent(message: Message) -> None:
    header, body = parts(message)
    assert body_length(header) == len(body)
    assert read_answer(body) == message


@given(starts, abouts, failures)
def test_payloads_of_the_template_arrive_as_they_were_sent(start: Start, about: About, failure: SentError) -> None:
    assert read_start(encode(start)) == start
    assert read_about(encode(about)) == about
    assert read_failure(encode(failure)) == failure


@given(starts, abouts, failures, st.integers(0, 20))
def test_a_payload_that_was_cut_is_malformed(start: Start, about: About, failure: SentError, length: int) -> None:
    for value, read in ((start, read_start), (about, read_about), (failure, read_failure)):
        payload = encode(value)
        with pytest.raises(MessageError):
            read(payload[: min(length, len(payload) - 1)])


@given(st.binary())
def test_bytes_that_are_no_message_are_malformed(body: bytes) -> None:
    for read in (read_order, read_answer, read_start, read_about, read_failure):
        with suppress(MessageError):  # and nothing else
            assert isinstance(read(body), Message | About | SentError)


@given(orders, st.data())
def test_a_message_that_was_cut_or_changed_is_malformed_or_another(message: Message, data: st.DataObject) -> None:
    _, body = parts(message)
    at = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(MessageError):
        read_order(body[:at])
    changed = bytearray(body)
    changed[at] ^= data.draw(st.integers(1, 255))
    with suppress(MessageError):  # and nothing else
        assert isinstance(read_order(bytes(changed)), Message)


def test_messages_of_one_direction_are_not_taken_in_the_other() -> None:
    with pytest.raises(MessageError):
        read_order(parts(Accepted(1))[1])
    with pytest.raises(MessageError):
        read_answer(parts(StatsRequest())[1])


def test_values_are_checked_where_they_arrive() -> None:
    body = msgspec.msgpack.encode(["Submit", 1, [{"id": "a", "prompt": [1], "params": {"temperature": 9}}]])
    with pytest.raises(MessageError, match="RequestError"):
        read_order(body)
    with pytest.raises(MessageError, match="malformed"):
        read_answer(
            msgspec.msgpack.encode(["StatsReport", {"step_seconds": {"bounds": [1], "counts": [1, 2, 3]}}])
        )


def test_headers_are_checked() -> None:
    assert body_length(HEADER.pack(VERSION, LARGEST)) == LARGEST
    with pytest.raises(MessageError, match="at most"):
        body_length(HEADER.pack(VERSION, LARGEST + 1))
    with pytest.raises(MessageError, match=f"version {VERSION + 1}; this is version {VERSION}"):
        body_length(HEADER.pack(VERSION + 1, 1))


@pytest.mark.parametrize(
    "message",
    [
        Submit(1, (GenerationRequest("a", (1,), SamplingParams(max_tokens=10**30)),)),
        Cancel(("\ud800",)),
        Cancel(("x" * (LARGEST + 1),)),
    ],
    ids=["a number too large", "no Unicode", "too long"],
)
def test_what_cannot_travel_is_not_sent(message: Message) -> None:
    with pytest.raises(MessageError, match=type(message).__name__):
        pack(message)


def test_nan_arrives() -> None:
    piece = Piece("", 1, queue_seconds=math.nan)
    message = read_answer(parts(Pieces((("a", piece),)))[1])
    assert isinstance(message, Pieces)
    assert math.isnan(message.pieces[0][1].queue_seconds)


def test_every_field_of_requests_and_pieces_is_of_a_type_that_travels() -> None:
    for kind in (GenerationRequest, SamplingParams, Piece, ServingConfig, EngineOptions):
        decoder = msgspec.msgpack.Decoder(kind)  # refuses types that it does not know
        assert decoder.type is kind
        assert fields(kind)
