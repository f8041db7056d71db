"""What transformers has of texts and nowhere makes public. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.utils.chat_template_utils import render_jinja_template

__all__ = ["bytes_to_unicode", "with_none"]


def with_none(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: list[Any] | None, options: Mapping[str, Any]
) -> str:
    """What `apply_chat_template` gives, with contents that are None left so, as some templates want them beside calls.

    `apply_chat_template` leaves out fields that are None, and then `content is none` is false.
    """
    rendered, _ = render_jinja_template(
        conversations=[list(messages)],
        tools=tools,
        chat_template=tokenizer.get_chat_template(None, tools),
        add_generation_prompt=True,
        **{**tokenizer.special_tokens_map, **options},
    )
    return str(rendered[0])
