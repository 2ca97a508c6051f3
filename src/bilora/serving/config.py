"""What a server is started with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bilora.protocols import BatchEngine


@dataclass(frozen=True)
class ServerConfig:
    """What one server serves, and how.

    `system_prompts`: what each adapter was trained with; a chat without a system message gets it.
    `penalties`: the frequency penalty that each adapter was measured with; a request that names none gets it.
    `reload` loads new adapter versions and returns how many; it is called every `reload_interval_s` seconds.
    `key` is what clients have to send, None for nothing. `max_tokens` limits an answer, `max_body` a request's bytes.
    `origins`: whose pages may ask from a browser, beside this machine's own; `*` for all.
    `tokenizer_info`: what /tokenizer_info says. `adapter_root`: the folder from which clients may load adapters, None
    for none.
    `base_id`, `base_revision` and `created`, the time of the start, are reported.
    """

    engine: BatchEngine
    base_id: str
    base_revision: str
    system_prompts: Mapping[str, str] = field(default_factory=dict)
    penalties: Mapping[str, float] = field(default_factory=dict)
    key: str | None = field(default=None, repr=False)
    max_body: int = 2**20
    max_tokens: int | None = None
    origins: Sequence[str] = ()
    tokenizer_info: Mapping[str, object] = field(default_factory=dict)
    adapter_root: Path | None = None
    reload: Callable[[], int] | None = None
    reload_interval_s: float = 1.0
    created: int = field(default_factory=lambda: int(time.time()))
