"""Launch files and commands to serve a bundle with vLLM or Ray Serve."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bilora.bases.base import Base
from bilora.storage import read_json

_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for --max-lora-rank."""


@dataclass(frozen=True)
class LaunchSpec:
    """The base and the adapters (name → folder) to serve."""

    base: Base
    adapters: Mapping[str, Path]

    @property
    def model(self) -> str:
        """The base's hub id, or the absolute path of its folder."""
        location = self.base.location
        return str(Path(location).resolve()) if Path(location).is_dir() else location

    @property
    def max_rank(self) -> int:
        """The smallest --max-lora-rank for all adapters."""
        largest = max((read_json(folder / "adapter_config.json")["r"] for folder in self.adapters.values()), default=1)
        return next(rank for rank in (*_VLLM_RANKS, largest) if rank >= largest)


def vllm_command(spec: LaunchSpec, *, host: str, port: int) -> str:
    """Return vLLM's command line. vLLM reads the API key from VLLM_API_KEY, so that no process list contains it."""
    command = ["vllm", "serve", spec.model]
    if spec.base.revision is not None:
        command += ["--revision", spec.base.revision, "--tokenizer-revision", spec.base.revision]
    command += ["--served-model-name", "base", "--dtype", spec.base.dtype, "--host", host, "--port", str(port)]
    if spec.adapters:
        command += ["--enable-lora", "--max-loras", str(len(spec.adapters)), "--max-lora-rank", str(spec.max_rank)]
        command += ["--lora-modules"]
        for name, folder in spec.adapters.items():
            command.append(json.dumps({"name": name, "path": folder.as_posix(), "base_model_name": "base"}))
    return shlex.join(command)


def vllm_files(spec: LaunchSpec, *, host: str, port: int) -> dict[str, str]:
    """Return the files for vLLM (name → text)."""
    return {"vllm.sh": f"#!/bin/sh\nset -eu\nexec {vllm_command(spec, host=host, port=port)}\n"}


def ray_command(folder: Path) -> str:
    """Return the command that starts Ray Serve with `ray_files` in `folder`."""
    return shlex.join(["serve", "run", (folder / "ray.yaml").as_posix()])


def ray_files(spec: LaunchSpec, *, adapters_at: str) -> dict[str, str]:
    """Return the files for Ray Serve (name → text).

    Args:
        adapters_at: URL of the bundle's adapter folders, such as s3://bucket/bundle, which every machine of the
            cluster can read. Ray names an adapter `base:NAME` and loads it at its first request.
    """
    import yaml

    engine: dict[str, object] = {"dtype": spec.base.dtype}
    if spec.base.revision is not None:
        engine |= {"revision": spec.base.revision, "tokenizer_revision": spec.base.revision}
    model: dict[str, object] = {"model_loading_config": {"model_id": "base", "model_source": spec.model}}
    if spec.adapters:
        engine |= {"enable_lora": True, "max_loras": len(spec.adapters), "max_lora_rank": spec.max_rank}
        model["lora_config"] = {
            "dynamic_lora_loading_path": adapters_at,
            "max_num_adapters_per_replica": len(spec.adapters),
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
