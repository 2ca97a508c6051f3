"""Settings of external services: OpenAI-compatible servers, and hubs to publish to."""

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
"""The base URLs of well-known servers, each with the environment variable of its key."""


class Endpoint(Settings):
    """An OpenAI-compatible server to compare with. Its key is read from the environment variable `key_env`.

    `preset` fills in `base_url` and `key_env`. `budget_tokens` limits one evaluation of one task: the sum of prompt
    and completion tokens.
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
    def _apply_preset(cls, entry: Any) -> Any:
        if isinstance(entry, dict) and entry.get("preset") in PRESETS:
            url, key = PRESETS[entry["preset"]]
            return {"base_url": url, "key_env": key, **entry}
        return entry

    @model_validator(mode="after")
    def _check_base_url(self) -> Endpoint:
        if not self.base_url:
            raise ValueError(f"endpoint {self.name!r} needs a base_url or a preset ({', '.join(PRESETS)})")
        if not re.match(r"https?://[^/\s]", self.base_url):
            raise ValueError(f"endpoint {self.name!r}: base_url must begin with http:// or https:// and name a host")
        return self

    @property
    def address(self) -> str:
        """`base_url` without its possible secrets: user, password and query."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @field_validator("base_url")
    @classmethod
    def _strip_route(cls, url: str) -> str:
        """Accept the URL of a route such as /chat/completions, which is often copied."""
        return re.sub(r"(?:/chat/completions|/completions|/models)?/*$", "", url.strip())


class LocalHubSettings(Settings):
    """Publish to a folder."""

    kind: Literal["local"]
    path: str


class HubRepositorySettings(Settings):
    """Publish on the Hugging Face hub: the bundle as `id`, and each adapter separately as `id-TASK`.

    `private` applies to repositories that the first push creates.
    """

    kind: Literal["hub"]
    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    private: Flag = False


class UrlHubSettings(Settings):
    """Publish to any store that fsspec can write to, such as s3://bucket/folder."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://")]


AnyHub = Annotated[LocalHubSettings | HubRepositorySettings | UrlHubSettings, Field(discriminator="kind")]
