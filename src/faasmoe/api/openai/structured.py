"""Fields that say what a response has to look like: OpenAI's `response_format`, vLLM's `structured_outputs`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, Tag, model_validator

from faasmoe.api.bodies import grammars
from faasmoe.api.bodies.fields import Body, Text
from faasmoe.api.bodies.shapes import OBJECT, TEXT, by_type, shape_of, text_or_object
from faasmoe.errors import RequestError

_MOST_CHOICES = 4096
FORMAT, OUTPUTS = "response_format", "structured_outputs"


class TextFormat(Body):
    """Plain text."""

    type: Literal["text"]

    def grammar(self) -> str | None:
        """None: any text."""
        return None


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]

    def grammar(self) -> str | None:
        """The grammar of the response. Raises `RequestError`."""
        return grammars.json_object(FORMAT)


class JsonSchema(Body):
    """A schema with its name, which changes nothing."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Text | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None  # responses are held to the schema either way


class JsonSchemaFormat(Body):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema

    def grammar(self) -> str | None:
        """The grammar of the response. Raises `RequestError`."""
        schema = self.json_schema.schema_
        return grammars.json_object(FORMAT) if schema is None else grammars.json_schema(schema, FORMAT)


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag(shape_of("text"))]
    | Annotated[JsonObjectFormat, Tag(shape_of("json_object"))]
    | Annotated[JsonSchemaFormat, Tag(shape_of("json_schema"))],
    by_type("text", "json_object", "json_schema"),
]
Schema = Annotated[
    Annotated[Text, Tag(TEXT)] | Annotated[dict[str, Any], Tag(OBJECT)],
    text_or_object("a JSON schema: an object, or its text"),
]


class StructuredOutputs(Body):
    """vLLM's: exactly one of the first five."""

    json_: Annotated[Schema | None, Field(alias="json")] = None
    json_object: bool | None = None
    regex: Text | None = None
    choice: Annotated[list[Text], Field(min_length=1, max_length=_MOST_CHOICES)] | None = None
    grammar_: Annotated[Text | None, Field(alias="grammar")] = None
    # known to vLLM and not served
    structural_tag: None = None
    whitespace_pattern: None = None
    disable_any_whitespace: Literal[False] | None = None
    disable_additional_properties: Literal[False] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        fields = (self.json_, self.json_object or None, self.regex, self.choice, self.grammar_)
        given = sum(field is not None for field in fields)
        if given != 1:
            raise RequestError(
                f"{OUTPUTS} has {given} of json, json_object, regex, choice and grammar: give exactly one",
                param=OUTPUTS,
            )
        return self

    def grammar(self) -> str:
        """The grammar of the response. Raises `RequestError`."""
        if self.json_ is not None:
            return grammars.json_schema(self.json_, OUTPUTS)
        if self.regex is not None:
            return grammars.regex(self.regex, OUTPUTS)
        if self.choice is not None:
            return grammars.choice(self.choice, OUTPUTS)
        if self.grammar_ is not None:
            return grammars.context_free(self.grammar_, OUTPUTS)
        return grammars.json_object(OUTPUTS)
