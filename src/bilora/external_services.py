"""Where things outside this process are: OpenAI-compatible servers, and hubs to publish on."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from bilora.yaml_settings import Count, Flag, Settings

PRESETS: dict[str, tuple[str, str | None]] = {
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "ollama": ("http://localhost:11434/v1", None),
    "vllm": ("http://localhost:8000/v1", None),
}
"""Where well-known servers answer, and the environment variable of their key."""


class Endpoint(Settings):
    """An OpenAI-compatible server to compare with. The key is read from the environment, never from here.

    `preset` fills in `base_url` and `key_env`. `budget_tokens` bounds what one evaluation of one task
    may cost, prompts and answers together.
    """

    name: str
    preset: Literal["groq", "openai", "ollama", "vllm"] | None = None
    base_url: str = ""
    model: str
    key_env: str | None = None
    concurrency: Count = 4
    timeout_s: Annotated[float, Field(gt=0.0)] = 60.0
    budget_tokens: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("preset") in PRESETS:
            url, key = PRESETS[given["preset"]]
            return {"base_url": url, "key_env": key, **given}
        return given

    @model_validator(mode="after")
    def _somewhere(self) -> Endpoint:
        if not self.base_url:
            raise ValueError(f"endpoint {self.name!r} needs a base_url or a preset ({', '.join(PRESETS)})")
        if not re.match(r"https?://[^/\s]", self.base_url):
            raise ValueError(f"endpoint {self.name!r}: base_url begins with http:// or https:// and names a host")
        return self

    @property
    def address(self) -> str:
        """`base_url` without what may be secret in it: a password, a query."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @field_validator("base_url")
    @classmethod
    def _without_path_of_a_call(cls, url: str) -> str:
        """Accept the address of the calls themselves, as it is often copied."""
        return re.sub(r"(?:/chat/completions|/completions|/models)?/*$", "", url.strip())


class LocalHubSettings(Settings):
    """Publish into a folder."""

    kind: Literal["local"]
    path: str


class HubRepositorySettings(Settings):
    """Publish on the Hugging Face hub: the bundle as `id`, and each adapter alone as `id-TASK`.

    `private` holds for repositories that the first push creates.
    """

    kind: Literal["hub"]
    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    private: Flag = False


class UrlHubSettings(Settings):
    """Publish to any store that fsspec can write to, such as s3://bucket/folder."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://")]


AnyHub = Annotated[LocalHubSettings | HubRepositorySettings | UrlHubSettings, Field(discriminator="kind")]
