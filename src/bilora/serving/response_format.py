"""The fields of a request for an answer in JSON: OpenAI's `response_format`, vLLM's `structured_outputs`."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue, model_validator

_Schema = dict[str, JsonValue]
_ANY_OBJECT: _Schema = {"type": "object"}


class TextFormat(BaseModel, extra="forbid"):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(BaseModel, extra="forbid"):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(BaseModel, extra="forbid"):
    """A JSON schema; the answer matches it with or without `strict`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    json_schema: Annotated[_Schema, Field(alias="schema")]
    strict: bool | None = None


class JsonSchemaFormat(BaseModel, extra="forbid"):
    """An answer that matches a JSON schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StructuredOutputs(BaseModel, extra="forbid"):
    """vLLM's structured outputs, of which only JSON schemas are supported."""

    json_schema: Annotated[_Schema, Field(alias="json")]


class StructuredRequest(BaseModel):
    """A request that may require an answer in JSON, with one of two fields."""

    response_format: Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None = (
        None
    )
    structured_outputs: StructuredOutputs | None = None

    @model_validator(mode="after")
    def _one_of_two_fields(self) -> StructuredRequest:
        if self.structured_outputs and self.response_format and self.response_format.type != "text":
            raise ValueError("response_format and structured_outputs exclude each other; send one of them")
        return self

    @property
    def json_schema(self) -> str | None:
        """The text of the schema that the answer must match; None for any text."""
        match self.response_format:
            case JsonSchemaFormat(json_schema=named):
                schema = named.json_schema
            case JsonObjectFormat():
                schema = _ANY_OBJECT
            case _ if self.structured_outputs:
                schema = self.structured_outputs.json_schema
            case _:
                return None
        return json.dumps(schema, separators=(",", ":"))  # unsorted: an answer has its properties in this order
