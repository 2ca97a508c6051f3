"""Serving the same bundle with other people's servers: vLLM on a GPU, Ray Serve on a cluster of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilora.bases.base import Base
from bilora.storage import read_json

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""


@dataclass(frozen=True)
class Bundle:
    """The base and the adapters (name → folder) that are to be served."""

    base: Base
    adapters: Mapping[str, Path]

    @property
    def rank(self) -> int:
        """The smallest rank setting that all adapters fit in."""
        largest = max((read_json(folder / "adapter_config.json")["r"] for folder in self.adapters.values()), default=1)
        return next(rank for rank in (*RANKS, largest) if rank >= largest)


def vllm_line(bundle: Bundle, *, host: str, port: int) -> str:
    """Return the command. vLLM reads the clients' key from VLLM_API_KEY, so that it is in no process list."""
    words = ["vllm", "serve", bundle.base.location]
    if bundle.base.revision is not None:
        words += ["--revision", bundle.base.revision, "--tokenizer-revision", bundle.base.revision]
    words += ["--served-model-name", "base", "--dtype", bundle.base.dtype, "--host", host, "--port", str(port)]
    if bundle.adapters:
        words += ["--enable-lora", "--max-loras", str(len(bundle.adapters)), "--max-lora-rank", str(bundle.rank)]
        words += ["--lora-modules"]
        for name, folder in bundle.adapters.items():
            words.append(json.dumps({"name": name, "path": folder.as_posix(), "base_model_name": "base"}))
    return shlex.join(words)


def vllm_files(bundle: Bundle, *, host: str, port: int) -> dict[str, str]:
    """Return what to write for vLLM: a script."""
    return {"vllm.sh": f"#!/bin/sh\nset -eu\nexec {vllm_line(bundle, host=host, port=port)}\n"}


def ray_line(folder: Path) -> str:
    """Return the command that starts what `ray_files` describes."""
    return shlex.join(["serve", "run", (folder / "ray.yaml").as_posix()])


def ray_files(bundle: Bundle, *, adapters_at: str) -> dict[str, str]:
    """Return what to write for Ray Serve.

    Args:
        adapters_at: where every machine of the cluster finds the bundle's adapter folders, such as
            s3://bucket/bundle. Ray names an adapter `base:NAME` and loads it at its first request.
    """
    import yaml

    engine: dict[str, Any] = {"dtype": bundle.base.dtype}
    if bundle.base.revision is not None:
        engine |= {"revision": bundle.base.revision, "tokenizer_revision": bundle.base.revision}
    model: dict[str, Any] = {"model_loading_config": {"model_id": "base", "model_source": bundle.base.location}}
    if bundle.adapters:
        engine |= {"enable_lora": True, "max_loras": len(bundle.adapters), "max_lora_rank": bundle.rank}
        model["lora_config"] = {
            "dynamic_lora_loading_path": adapters_at,
            "max_num_adapters_per_replica": len(bundle.adapters),
        }
    model |= {
        "engine_kwargs": engine,
        "deployment_config": {"autoscaling_config": {"min_replicas": 1, "max_replicas": 4}},
    }
    application = {
        "name": "bilora",
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [model]},
    }
    return {"ray.yaml": yaml.safe_dump({"applications": [application]}, sort_keys=False)}
