"""Templates that leave messages out, each as some model's does, in words of our own."""

from __future__ import annotations

from typing import Any

import pytest

from faasmoe.errors import RequestError
from faasmoe.model.text.prompts import PromptEncoder
from tests.tokenizers import CHATML, INST, THINKING, chatml

MOST = 100_000
TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"

TURNS = "{% if m.role == 'user' %}[U]{{ m.content }}{% elif m.role == 'assistant' %}[A]{{ m.content }}{% endif %}"

KNOWN_ROLES = (  # Phi-3.5, GLM-4, Qwen3
    "{% for m in messages %}{% if m.role == 'system' %}[S]{{ m.content }}{% endif %}" + TURNS + "{% endfor %}"
)
FIRST_SYSTEM = (  # MiniMax M2
    "{% if messages[0].role == 'system' %}[S]{{ messages[0].content }}{% endif %}"
    "{% for m in messages %}" + TURNS + "{% endfor %}"
)
LAST_SYSTEM = (  # DeepSeek-V3, as it came out
    "{% set ns = namespace(s='') %}"
    "{% for m in messages %}{% if m.role == 'system' %}{% set ns.s = m.content %}{% endif %}{% endfor %}"
    "[S]{{ ns.s }}{% for m in messages %}" + TURNS + "{% endfor %}"
)
EITHER_FIRST = (  # gpt-oss
    "{% set rest = messages %}{% if messages[0].role == 'developer' or messages[0].role == 'system' %}"
    "[D]{{ messages[0].content }}{% set rest = messages[1:] %}{% endif %}"
    "{% for m in rest %}" + TURNS + "{% endfor %}"
)
STRICT = (  # Qwen3.5
    "{% for m in messages %}{% if m.role == 'system' %}{% if not loop.first %}{{ raise_exception('system first') }}"
    "{% endif %}[S]{{ m.content }}{% elif m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('unexpected role') }}{% endif %}" + TURNS + "{% endfor %}"
)
DEFAULT_SYSTEM = (  # Qwen2-MoE, to which a developer would be a role that it has never seen
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}[default]{% endif %}" + TURN + "{% endfor %}"
)
LAST_USER = "[U]{{ messages[-1].content }}"
BOTH = (
    "{% for m in messages %}{% if m.role in ('developer', 'system', 'user') %}[{{ m.role }}]{{ m.content }}{% endif %}"
    "{% endfor %}"
)


def conversation(*turns: str) -> list[dict[str, str]]:
    """Of letters: s, d, u, a, each followed by the content."""
    roles = {"s": "system", "d": "developer", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[1:]} for turn in turns]


def told(template: str, *turns: str) -> str:
    """What reaches the model."""
    tokenizer = chatml(template)
    return str(tokenizer.decode(PromptEncoder(chatml(template)).encode_chat(conversation(*turns), MOST)))


@pytest.mark.parametrize(
    ("template", "turns", "text"),
    [
        (KNOWN_ROLES, ("dBe brief.", "uHi"), "[S]Be brief.[U]Hi"),
        (KNOWN_ROLES, ("uHi", "aHo", "dBe brief.", "uSo?"), "[U]Hi[A]Ho[S]Be brief.[U]So?"),
        (FIRST_SYSTEM, ("dBe brief.", "uHi"), "[S]Be brief.[U]Hi"),
        (FIRST_SYSTEM, ("sOne.", "dTwo.", "sThree.", "uHi"), "[S]One.\n\nTwo.\n\nThree.[U]Hi"),
        (LAST_SYSTEM, ("sOne.", "sTwo.", "uHi"), "[S]One.\n\nTwo.[U]Hi"),
        (LAST_SYSTEM, ("dOne.", "uHi"), "[S]One.[U]Hi"),
        (EITHER_FIRST, ("dOne.", "uHi"), "[D]One.[U]Hi"),
        (EITHER_FIRST, ("sOne.", "dTwo.", "uHi"), "[D]One.\n\nTwo.[U]Hi"),
        (STRICT, ("dOne.", "uHi"), "[S]One.[U]Hi"),
        (STRICT, ("sOne.", "dTwo.", "uHi"), "[S]One.\n\nTwo.[U]Hi"),
        (DEFAULT_SYSTEM, ("dOne.", "uHi"), "<|im_start|>system\nOne.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"),
        (BOTH, ("sOne.", "dTwo.", "dThree.", "uHi"), "[system]One.[developer]Two.[developer]Three.[user]Hi"),
    ],
)
def test_what_a_template_has_a_place_for_reaches_the_model(
    template: str, turns: tuple[str, ...], text: str
) -> None:
    assert told(template, *turns) == text


@pytest.mark.parametrize(
    ("template", "turns", "lost"),
    [
        (
            FIRST_SYSTEM,
            ("sOne.", "uHi", "sTwo.", "uSo?"),
            "messages.2: .* leaves out this system message; say it in",
        ),
        (FIRST_SYSTEM, ("dOne.", "uHi", "dTwo."), "messages.2: .* leaves out this developer message"),
        (LAST_SYSTEM, ("sOne.", "uHi", "sTwo."), "messages.0: .* leaves out this system message"),
        (EITHER_FIRST, ("sOne.", "uHi", "dTwo."), "messages.2: .* leaves out this developer message"),
        (LAST_USER, ("uHi", "aHo", "uSo?"), "messages.0: the model's chat template leaves out this user message$"),
        (BOTH, ("uHi", "aHo", "uSo?"), "messages.1: the model's chat template leaves out this assistant message$"),
        (STRICT, ("sOne.", "uHi", "sTwo."), "chat template refuses the messages: system first"),
        ("nothing at all", ("uHi",), "messages.0: .* leaves out this user message"),
    ],
)
def test_what_it_has_no_place_for_is_refused(template: str, turns: tuple[str, ...], lost: str) -> None:
    with pytest.raises(RequestError, match=lost) as caught:
        told(template, *turns)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("control", [True, False])
def test_who_may_spell_control_tokens_loses_nothing_either(control: bool) -> None:
    encoder = PromptEncoder(chatml(KNOWN_ROLES), control)
    ids = encoder.encode_chat(conversation("dBe brief.", "uHi"), MOST)
    assert chatml().decode(ids) == "[S]Be brief.[U]Hi"


@pytest.mark.parametrize(
    ("template", "turns"),
    [
        (THINKING, ("uHi", "a<think>\nhm\n</think>\n\nHo", "uSo?")),  # thoughts are left out on purpose
        (THINKING, ("uHi", "a<think>\nhm\n</think>", "uSo?")),
        (INST, ("u  Hi  ", "a", "uSo?")),
        (KNOWN_ROLES, ("s", "uHi")),
        (CHATML, ("uHi", "sOne.", "sTwo.")),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", ("uHi",)),
        ("{% for m in messages %}{{ m.content[1:-1] }}{% endfor %}", ("uHi",)),
        ("{% for m in messages %}{{ m.content | tojson }}{% endfor %}", ("uHi", "aHo")),
    ],
)
def test_parts_of_contents_are_the_template_s_affair(template: str, turns: tuple[str, ...]) -> None:
    plain = chatml(template).apply_chat_template(conversation(*turns), add_generation_prompt=True, tokenize=False)
    assert told(template, *turns) == plain


def test_a_sequence_of_roles_is_looked_at_once() -> None:
    tokenizer: Any = chatml(LAST_SYSTEM)
    encoder, rendered = PromptEncoder(tokenizer), []
    render = tokenizer.apply_chat_template
    tokenizer.apply_chat_template = lambda messages, **how: (rendered.append(1), render(messages, **how))[1]
    counts = []
    for content in ("Hi", "Ho", "So?"):
        encoder.encode_chat(conversation("sOne.", f"u{content}"), MOST)
        counts.append(len(rendered))
    assert counts == [2, 3, 4]
    encoder.encode_chat(conversation("dOne.", "sTwo.", "uHi"), MOST)
    assert len(rendered) == 4 + 3  # apart, together, and the real one
    for _ in range(2):
        with pytest.raises(RequestError):
            encoder.encode_chat(conversation("sOne.", "uHi", "sTwo."), MOST)
    assert len(rendered) == 7 + 1


def test_the_longest_conversations_cost_little() -> None:
    encoder = PromptEncoder(chatml(FIRST_SYSTEM))
    turns = conversation(*["sOne."] * 2000, *["uHi", "aHo"] * 1048)
    assert len(encoder.encode_chat(turns, MOST)) > 4096
