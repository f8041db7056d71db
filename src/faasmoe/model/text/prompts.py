"""From what users write to token ids, with the model's own tokenizer and chat template.

By default users cannot write control tokens: what spells one is encoded as the ordinary text that it is
(`model.text.control_tokens`). Ids are those of transformers in all other respects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import transformers  # its names are looked up where they are used: most of them bring torch

from faasmoe.errors import CheckpointError, RequestError, brief
from faasmoe.model.adapter.tokenization import with_none
from faasmoe.model.text.control_tokens import (
    MARKS_TOKEN,
    TOKENS,
    Marks,
    check,
    is_control,
    is_control_of_answers,
    marker,
)
from faasmoe.model.text.conversation_texts import texts_of, with_texts
from faasmoe.model.text.conversations import Conversation, Conversations, Message, Render, Tools
from faasmoe.model.text.folding import folded
from faasmoe.model.text.template_variables import variables
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

_FIRST_LOOK = 8  # characters a token: longer texts are looked at piece by piece before all of them is encoded
_AROUND = "a{}b"  # in what control tokens are tried


class PromptEncoder:
    """Encodes prompts and conversations. `control` says whether users may spell control tokens."""

    def __init__(self, tokenizer: Any, control: bool = False) -> None:
        """Changes `tokenizer`, which belongs to this object from now on."""
        self._tokenizer = tokenizer
        self._template = tokenizer.chat_template
        written = str(self._template or "")  # there may be several, by name
        self._conversations = Conversations(written, self._render)
        self._added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
        self._specials = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._plain: _Plain | _Refusing | None = None
        if not control:
            self._plain = _Plain.of(tokenizer, written) or _Refusing(tokenizer, written)

    @classmethod
    def saved(cls, folder: Path, control: bool = False) -> PromptEncoder:
        """The tokenizer that `Tokenizer.save` has written. Brings torch only if it is no fast one.

        Raises `CheckpointError` if it cannot be read.
        """
        fast = (folder / "tokenizer.json").exists()
        kind = transformers.PreTrainedTokenizerFast if fast else transformers.AutoTokenizer
        try:
            return cls(kind.from_pretrained(folder, trust_remote_code=False), control)
        except Exception as error:  # tokenizer classes raise whatever their parsers do
            raise CheckpointError(f"{folder} holds no usable tokenizer: {brief(error)}") from error

    def encode(self, text: str, most: int, field: str = "prompt") -> list[int]:
        """Token ids of `text`, with the tokens that the model wants before a text.

        Raises `RequestError` naming `field` if they are more than `most`, which is found out without encoding all of a
        long text, or if `text` cannot be encoded.
        """
        if self._plain is not None:
            self._plain.check(text, field)
        return self._within(text, most, field, framed=True)

    @property
    def template(self) -> str:
        """The chat template; empty if the model has none."""
        return str(self._template or "")

    @cached_property
    def options(self) -> frozenset[str]:
        """Names of variables that the chat template reads beside messages and tools, such as `enable_thinking`."""
        return variables(self.template)

    def encode_chat(
        self,
        messages: Sequence[Message],
        most: int,
        tools: Tools = (),
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Token ids of a conversation that the assistant is to continue.

        A model without a chat template gets the contents of all messages, in order, each followed by an empty line.
        Raises `RequestError` as `encode` does, or if the model's template refuses the messages or leaves one out.
        """
        if not self._template:
            plain = folded(messages, tools, "system")
            return self.encode("".join(f"{message['content']}\n\n" for message in plain), most, "messages")
        asked = Conversation(messages=messages, tools=tools, options=options or {})
        put = self._conversations.arranged(asked)
        if self._plain is None:
            return self._within(self._render(put), most, "messages", framed=False)
        text = self._plain.rendered(put, self._render)
        return self._within(text, most, "messages", framed=False)

    def folds(self, messages: Sequence[Message], tools: Tools, options: Mapping[str, Any]) -> bool:
        """Whether the prompt of a conversation has its tools and calls as text in Hermes' form."""
        if not self._template:
            return True
        return self._conversations.folds(Conversation(messages=messages, tools=tools, options=options))

    def plain(self, text: str) -> tuple[int, ...]:
        """Token ids of `text` alone, in which signs are control tokens where the model has such."""
        token = self.token(text)
        if token is not None:
            return (token,)
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, special ones included."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    def is_special(self, text: str) -> bool:
        """Whether a token stands for `text` that responses do not show by themselves."""
        return text in self._specials

    def token(self, text: str) -> int | None:
        """The one token that stands for `text`; None if there is none."""
        return self._added.get(text)

    def name(self, token: int) -> str:
        """The text of a token, as it is called in messages."""
        return str(self._tokenizer.convert_ids_to_tokens(token) or token)

    def _render(self, put: Conversation) -> str:
        tools = list(put.tools) or None
        try:
            if any(message["content"] is None for message in put.messages):
                return with_none(self._tokenizer, put.messages, tools, put.options)
            return str(
                self._tokenizer.apply_chat_template(
                    list(put.messages),
                    tools=tools,
                    add_generation_prompt=True,
                    tokenize=False,
                    **put.options,
                )
            )
        except Exception as error:  # templates are programs, and fail in every way that programs do
            raise RequestError(
                f"the model's chat template refuses the messages: {brief(error)}", param="messages"
            ) from error

    def _within(self, text: str, most: int, field: str, framed: bool) -> list[int]:
        size = _FIRST_LOOK * max(most, 1)
        while size < len(text):  # the end of a beginning may be encoded in another way than it is within the text
            if len(self._ids(text[:size], field, framed)) > most + most // 8 + 64:
                raise too_long(most)
            size *= 2
        ids = self._ids(text, field, framed)
        if len(ids) > most:
            raise too_long(most)
        return ids

    def _ids(self, text: str, field: str, framed: bool) -> list[int]:
        if not text.isascii():
            _check_encodes(text, field)
        if self._plain is not None:
            return self._plain.ids(text, field, framed)
        return list(self._tokenizer.encode(text, add_special_tokens=framed))


def _check_encodes(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON escapes such in tools and schemas
        raise RequestError(
            f"{field}: half of a surrogate pair is no character, and the prompt has one", param=field
        ) from None


def too_long(most: int) -> RequestError:
    """The error for a prompt that does not fit the context, in words by which clients know that it is to be cut.

    LiteLLM, opencode and pi look for "maximum context length is", LangChain for the code.
    """
    return RequestError(
        f"this model's maximum context length is {most} tokens, and the prompt has more: reduce the length of the "
        "messages",
        param="prompt",
        code="context_length_exceeded",
    )


class _Plain:
    """A fast tokenizer that knows markers in place of the texts of control tokens."""

    def __init__(self, backend: Backend, marks: Marks, of_markers: dict[int, int], silent: frozenset[int]) -> None:
        self._backend = backend
        self._marks = marks
        self._of_markers = of_markers  # id of a marker: id of its control token
        self._control = frozenset(of_markers.values()) - silent
        self._frame = self._count(self._encode("", framed=True))

    @classmethod
    def of(cls, tokenizer: Any, template: str) -> _Plain | None:
        """None if `tokenizer` cannot be made one."""
        if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
            return None
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        control = {i: t for i, t in tokenizer.added_tokens_decoder.items() if is_control(t, template)}
        before = [
            backend.encode(_AROUND.format(t.content), add_special_tokens=False).ids for t in control.values()
        ]
        if not all(token.special for token in control.values()):
            backend = _all_special(backend, {token.content for token in control.values()})
        backend.encode_special_tokens = True  # as ordinary text
        markers = [marker(number) for number in range(len(control))]
        backend.add_tokens([_like(token, sign) for token, sign in zip(control.values(), markers, strict=True)])
        of_markers = {backend.token_to_id(sign): i for sign, i in zip(markers, control, strict=True)}
        texts = [token.content for token in control.values()]
        answers = [token.content for token in control.values() if is_control_of_answers(token)]
        # what no token stands for, and no control
        unknown = {i for i in (tokenizer.unk_token_id,) if i is not None}
        made = cls(backend, Marks(texts, answers), of_markers, frozenset(unknown))
        after = [made._encode(_AROUND.format(sign), framed=False) for sign in markers]
        return made if before == after else None

    def check(self, text: str, field: str) -> None:
        """Raises `RequestError` if `text` has parts of markers."""
        check(text, field)

    def rendered(self, put: Conversation, render: Render) -> str:
        """The text of a conversation, with markers where the template writes control tokens."""
        texts = texts_of(put)
        for _, text in texts:
            check(text, "messages")
        contents, hidden = self._marks.hide(texts)
        return self._marks.show(render(with_texts(put, contents)), hidden, "messages")

    def ids(self, text: str, field: str, framed: bool) -> list[int]:
        """Token ids of `text`: of control tokens there are those of markers, and of the frame, and no others."""
        ids = self._encode(text, framed)
        allowed = len(TOKENS.findall(text)) + (self._frame if framed else 0)
        if self._count(ids) > allowed:
            raise RequestError(
                f"{field} spells a control token that this model's tokenizer cannot encode as text", param=field
            )
        return ids

    def _encode(self, text: str, framed: bool) -> list[int]:
        ids = self._backend.encode_batch_fast([text], add_special_tokens=framed)[0].ids
        return [self._of_markers.get(i, i) for i in ids] if MARKS_TOKEN in text else ids

    def _count(self, ids: Sequence[int]) -> int:
        return sum(map(self._control.__contains__, ids))


class _Refusing:
    """A tokenizer that does not let itself be told: texts that spell control tokens are refused."""

    def __init__(self, tokenizer: Any, template: str) -> None:
        self._tokenizer = tokenizer
        control = [
            token.content for token in tokenizer.added_tokens_decoder.values() if is_control(token, template)
        ]
        self._marks = Marks(control, control)

    def check(self, text: str, field: str) -> None:
        """Raises `RequestError` if `text` spells a control token."""
        if spelled := self._marks.spelled(text):
            raise RequestError(
                f"{field} spells the control token {spelled!r}, which this model's tokenizer cannot encode as text",
                param=field,
            )

    def rendered(self, put: Conversation, render: Render) -> str:
        """The text of a conversation."""
        for _, text in texts_of(put):
            self.check(text, "messages")
        return render(put)

    def ids(self, text: str, _: str, framed: bool) -> list[int]:
        """Token ids of `text`."""
        return list(self._tokenizer.encode(text, add_special_tokens=framed))


def _all_special(backend: Backend, control: set[str]) -> Backend:
    """The same tokenizer, which takes these tokens of its for special ones: only such can be told to be text."""
    written = json.loads(backend.to_str())
    for token in written["added_tokens"]:
        token["special"] = token["special"] or token["content"] in control
    return Backend.from_str(json.dumps(written))


def _like(token: AddedToken, text: str) -> AddedToken:
    """A token that takes the spaces around it as `token` does."""
    return AddedToken(
        text,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=False,
    )
