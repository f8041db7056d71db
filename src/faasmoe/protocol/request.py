"""Requests to an orchestrator, and the pieces of its responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from hashlib import blake2b
from typing import Any

from faasmoe.errors import RequestError

MAX_STOPS = 64  # OpenAI's API takes 4; clients of other servers send more
MAX_STOP_LENGTH = 4096  # characters of each: the end of the text is compared with all beginnings of it
RANGES: dict[str, tuple[float, float]] = {  # least and greatest value
    "temperature": (0, 2),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.1, 10),  # beyond, float32 logits overflow
    "logit_bias": (-100, 100),
    "logprobs": (0, 20),  # as OpenAI's chat API has it for top_logprobs
}


MAX_GRAMMAR = 1 << 20  # characters
# of llguidance's parser, for one step or for one grammar: what a hostile schema may take of time and memory
GRAMMAR_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,  # about 20 ms
    "step_lexer_fuel": 100_000,  # about 7 ms
    "step_max_items": 50_000,  # about 3 ms
    "max_lexer_states": 10_000,  # of up to 2 KB
    "max_grammar_size": 200_000,
    "verbose_errors": False,  # they would quote the response
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingBudget:
    """How long a model may think before it answers: token ids around the reasoning, and its most tokens."""

    begin: tuple[int, ...]  # empty if the prompt ends with them
    blank: tuple[int, ...] = ()  # whitespace, which may stand before them
    end: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters, and the log-probabilities to return.

    Names and meanings are those of OpenAI's API (https://platform.openai.com/docs/api-reference), and of vLLM's
    `SamplingParams` where OpenAI has none (`top_k`, `min_p`, `repetition_penalty`, `ignore_eos`). `Sampler` says what
    is applied when. Raises `RequestError` naming the field if a value is out of range.
    """

    max_tokens: int = 16  # 0 is taken with `echo` only
    _: KW_ONLY
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int = 0  # 0 and -1 keep all
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # token ids, each once, and what is added to their logits
    logprobs: int | None = None  # log-probabilities of every token, and of this many likeliest ones in its place
    echo: bool = False  # the answer begins with the prompt
    ignore_eos: bool = False  # end tokens end nothing
    skip_special_tokens: bool = True  # text of the answer has none
    thinking: ThinkingBudget | None = None
    grammar: str | None = None  # in llguidance's form; the answer is a sentence of it

    def __post_init__(self) -> None:
        for name in RANGES:
            if name != "logit_bias" and getattr(self, name) is not None:
                _check_range(name, getattr(self, name))
        for _, bias in self.logit_bias:
            _check_range("logit_bias", bias)
        if self.max_tokens < (0 if self.echo else 1):
            _refuse("max_tokens", self.max_tokens, "at least 1, or 0 with echo")
        if not 0 < self.top_p <= 1:
            _refuse("top_p", self.top_p, "above 0 and at most 1")
        if self.top_k < -1:
            _refuse("top_k", self.top_k, "at least 1, or 0 or -1 to keep all tokens")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            _refuse("seed", self.seed, "a 64-bit integer")
        if len(self.stop) > MAX_STOPS or "" in self.stop:
            what = f"{len(self.stop)} strings" if "" not in self.stop else "an empty string"
            raise RequestError(f"stop has {what}: must be at most {MAX_STOPS} strings, none empty", param="stop")
        if any(len(stop) > MAX_STOP_LENGTH for stop in self.stop):
            raise RequestError(f"stop has more than {MAX_STOP_LENGTH} characters", param="stop")

        if len(self.grammar or "") > MAX_GRAMMAR:
            raise RequestError(
                f"the schema or grammar has more than {MAX_GRAMMAR} characters", param="response_format"
            )

    def within(self, tokens: int) -> SamplingParams:
        """The params of a completion for which there is room for `tokens` tokens: `max_tokens` is cut to them.

        Where there is room for none, `max_tokens` is left, and the engine refuses the request.
        """
        return replace(self, max_tokens=tokens) if 0 < tokens < self.max_tokens else self

    def choice(self, index: int) -> SamplingParams:
        """The params of one of several choices for a prompt. The first has the seed, others seeds made of it."""
        if self.seed is None or index == 0:
            return self
        digest = blake2b(f"{self.seed}/{index}".encode(), digest_size=8).digest()
        return replace(self, seed=int.from_bytes(digest, signed=True))


def sampled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `SamplingParams` as clients give them: a `top_p` of 0 leaves no token but the likeliest."""
    return {**given, "top_p": 1.0, "temperature": 0.0} if given.get("top_p") == 0 else dict(given)


def _check_range(name: str, value: float) -> None:
    low, high = RANGES[name]
    if not low <= value <= high:  # so that NaN is refused
        _refuse(name, value, f"{low} to {high}")


def _refuse(name: str, value: object, right: str) -> None:
    raise RequestError(f"{name} is {value!r}: must be {right}", param=name)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to continue."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    _: KW_ONLY
    tenant: str = ""  # who asks; requests without one share the nameless tenant
    weight: float = 1.0  # the tenant's share of tokens beside others'; the newest request's holds
    priority: int = 0  # within the tenant: requests of a higher one go first

    @property
    def needs_all_logits(self) -> bool:
        """True if the logits of every token of the prompt are needed, so that no KV cache can be reused."""
        return self.params.echo and self.params.logprobs is not None


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token in some place, and how likely the model holds it there."""

    token: int
    data: bytes  # its text in UTF-8, which may begin or end within a character
    logprob: float | None  # natural; None for the first token of a prompt, which nothing predicts


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of a completion, and what else could have stood there."""

    chosen: ScoredToken
    top: tuple[ScoredToken, ...]  # the likeliest, most likely first
    offset: int  # characters of the answer's text before it


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """The usage of a request. The cost of a step or call that served several requests is split by tokens."""

    invocations: float = 0.0  # of functions
    expert_seconds: float = 0.0  # that functions computed
    gb_seconds: float = 0.0  # 10^9 bytes of instances times the seconds that they were busy with it
    cold_starts: float = 0.0  # instances started for it
    orchestrator_cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that has become certain. The last piece of a request carries `finish_reason` or `error`, and `used`."""

    text: str
    tokens: int  # completion tokens so far
    finish_reason: str | None = None  # "stop", "length", or "cancelled" if the client wanted no more of it
    _: KW_ONLY
    stop: str | None = None  # the stop string that ended the text, with the last piece
    error: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()  # of tokens since the piece before, if they were asked for
    cached_tokens: int = 0  # of the prompt, found in the prefix cache
    queue_seconds: float = 0.0  # from submission to the first step that it took part in
    used: ResourceUsage | None = None  # with the last piece, however the request ended

    @property
    def last(self) -> bool:
        """True for the last piece of a request."""
        return self.finish_reason is not None or self.error is not None
