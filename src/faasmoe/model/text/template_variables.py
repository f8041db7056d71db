"""The variables of a chat template that a request may set."""

from __future__ import annotations

import re

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

# what transformers gives every template, and parameters of its `apply_chat_template`
_TAKEN = frozenset(
    (
        "messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token",
        "raise_exception", "strftime_now", "conversation", "chat_template", "continue_final_message", "tokenize",
        "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
        "tokenizer_kwargs", "self", "range", "namespace", "dict", "lipsum", "cycler", "joiner",
    )
)  # fmt: skip
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # a tag of transformers' own


def variables(template: str) -> frozenset[str]:
    """Names that `template` reads and nobody else gives; none if it cannot be parsed."""
    template = _GENERATION.sub("", template)
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return frozenset(meta.find_undeclared_variables(environment.parse(template))) - _TAKEN
    except jinja2.TemplateError:
        return frozenset()
