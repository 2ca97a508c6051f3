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
    """An OpenAI-compatible server."""

    name: str = Field(description="its name in tables and results")
    preset: Literal["groq", "openai", "ollama", "vllm"] | None = Field(
        default=None, description="a known server, which fills in `base_url` and `key_env`"
    )
    base_url: str = Field(default="", description="URL of the API, up to /v1")
    model: str = Field(description="the model's name there")
    key_env: str | None = Field(default=None, description="environment variable with the API key")
    concurrency: Count = Field(default=4, description="requests at the same time")
    timeout_s: float = Field(default=60.0, gt=0.0, description="seconds to wait for one answer")
    budget_tokens: Count | None = Field(
        default=None, description="prompt and completion tokens that one evaluation of one task may use"
    )

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
    path: str = Field(description="the folder")


class HubRepositorySettings(Settings):
    """Publish on the Hugging Face hub: the bundle as `id`, and each adapter separately as `id-TASK`."""

    kind: Literal["hub"]
    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="repository of the bundle")
    private: Flag = Field(default=False, description="whether repositories that the first push creates are private")


class UrlHubSettings(Settings):
    """Publish to any store that fsspec can write to, such as s3://bucket/folder."""

    kind: Literal["url"]
    url: str = Field(pattern=r"^[a-z][a-z0-9+.-]*://", description="URL of the folder")


AnyHub = Annotated[LocalHubSettings | HubRepositorySettings | UrlHubSettings, Field(discriminator="kind")]
