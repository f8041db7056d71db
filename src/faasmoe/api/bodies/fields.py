"""Fields of bodies: their types and bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Tag

from faasmoe.api.bodies.shapes import ID_LISTS, IDS, LIST, NO_CHARACTER, TEXT, TEXTS, prompt_shape, text_or_list
from faasmoe.protocol.request import MAX_STOPS, RANGES

MAX_CHOICES = 128  # of all prompts of a request together
MAX_MESSAGES = 4096
MAX_PARTS = 4096  # of one message
MAX_BIASES = 4096
MAX_STOP = 1024  # characters of a stop string: so much text of a response is held back until it is certain
MAX_NAME = 1024  # characters of a model's name
MAX_TOOLS, MAX_CALLS = 512, 512
MAX_ID = 256  # characters of a call's id
MAX_USER = 256  # characters of the name of a tenant's own end user
MAX_METADATA = 16  # entries
MAX_METADATA_KEY, MAX_METADATA_VALUE = 64, 512  # characters


def _well_formed(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(NO_CHARACTER) from None
    return text


def _short_keys(metadata: dict[str, str]) -> dict[str, str]:
    if any(len(key) > MAX_METADATA_KEY for key in metadata):
        raise ValueError(f"a key has more than {MAX_METADATA_KEY} characters")
    return metadata


def field_range(name: str) -> Any:
    """The bounds of a parameter of sampling."""
    low, high = RANGES[name]
    return Field(ge=low, le=high)


Text = Annotated[str, AfterValidator(_well_formed)]
Stop = Annotated[Text, Field(max_length=MAX_STOP)]
Stops = Annotated[
    Annotated[Stop, Tag(TEXT)] | Annotated[list[Stop], Field(max_length=MAX_STOPS, fail_fast=True), Tag(LIST)],
    text_or_list(f"a string or a list of up to {MAX_STOPS} strings"),
]
Name = Annotated[Text, Field(max_length=MAX_NAME)]
Speaker = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]  # spells no control token
User = Annotated[Text, Field(max_length=MAX_USER)]
Metadata = Annotated[
    dict[Text, Annotated[Text, Field(max_length=MAX_METADATA_VALUE)]],
    Field(max_length=MAX_METADATA),
    AfterValidator(_short_keys),
]
Texts = Annotated[list[Text], Field(fail_fast=True)]
# `api.bodies.structure` bounds their number, which depends on the model
Ids = Annotated[list[int], Field(fail_fast=True)]
Prompt = Annotated[
    Annotated[Text, Tag(TEXT)]
    | Annotated[Texts, Tag(TEXTS)]
    | Annotated[Ids, Tag(IDS)]
    | Annotated[list[Ids], Field(fail_fast=True), Tag(ID_LISTS)],
    prompt_shape("a string, a list of strings, a list of token ids, or a list of lists of token ids"),
]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Some = Annotated[int, Field(ge=1, lt=2**63)]
TokenId = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]  # JSON's keys are strings
Biases = Annotated[dict[TokenId, Annotated[float, field_range("logit_bias")]], Field(max_length=MAX_BIASES)]
TemplateOptions = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")],
        bool
        | Annotated[int, Field(ge=-(2**31), lt=2**31)]
        | Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,64}$")],
    ],
    Field(max_length=16),
]
NoItems = Annotated[list[object], Field(max_length=0)]


ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]  # spells no control token
CallId = Annotated[Text, Field(min_length=1, max_length=MAX_ID)]


class Body(BaseModel):
    """Strict: a number in quotes is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)
