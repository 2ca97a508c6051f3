"""The configuration of a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bilora.protocols import BatchEngine


@dataclass(frozen=True)
class ServerConfig:
    """The configuration of one server.

    `base_id`, `base_revision`, `created`: reported by /v1/models. `tokenizer_info`: the reply of /tokenizer_info.
    `system_prompts`: by adapter, for chats without a system message. `frequency_penalties`: by adapter, for requests
    that set none.
    `key`: the API key that clients must send, None for no key. `max_body`: maximum bytes of a request. `max_tokens`:
    maximum tokens of an answer. `origins`: web origins that may send requests from a browser, besides this machine's;
    `*` for all. `adapter_root`: the folder from which clients may load adapters, None to refuse that.
    `reload`: loads new adapter versions and returns their number, every `reload_interval_s` seconds.
    """

    engine: BatchEngine
    base_id: str
    base_revision: str
    system_prompts: Mapping[str, str] = field(default_factory=dict)
    frequency_penalties: Mapping[str, float] = field(default_factory=dict)
    key: str | None = field(default=None, repr=False)
    max_body: int = 2**20
    max_tokens: int | None = None
    origins: Sequence[str] = ()
    tokenizer_info: Mapping[str, object] = field(default_factory=dict)
    adapter_root: Path | None = None
    reload: Callable[[], int] | None = None
    reload_interval_s: float = 1.0
    created: int = field(default_factory=lambda: int(time.time()))
