"""The launch files for vLLM and Ray Serve name the same base and adapters."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from support.sample_adapters import SMOKE, SampleAdapters

from bilora.bases.kinds.folder import FolderBase
from bilora.bases.kinds.hub import HubBase
from bilora.serving.launch_files import LaunchSpec, ray_files, vllm_command, vllm_files
from bilora.storage import write_json

HUB = HubBase(id="owner/base", revision="a" * 40, hub="owner/base")


def test_vllm_gets_every_adapter_under_its_own_name(sample_adapters: SampleAdapters) -> None:
    command = shlex.split(vllm_command(LaunchSpec(HUB, sample_adapters.folders), host="0.0.0.0", port=9))
    modules = [json.loads(word) for word in command[command.index("--lora-modules") + 1 :]]
    assert {module["name"]: module["path"] for module in modules} == {
        k: str(v) for k, v in sample_adapters.folders.items()
    }
    assert {module["base_model_name"] for module in modules} == {"base"}
    assert command[:3] == ["vllm", "serve", "owner/base"]
    assert command[command.index("--revision") + 1] == HUB.revision
    assert command[command.index("--served-model-name") + 1] == "base"
    assert command[command.index("--max-loras") + 1] == "3"


def test_the_command_works_in_every_directory(sample_adapters: SampleAdapters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SMOKE.path.parent)
    base = FolderBase(id="smoke", revision=None, path=Path(SMOKE.path.name))
    command = shlex.split(vllm_command(LaunchSpec(base, {}), host="h", port=1))
    assert Path(command[2]).is_absolute() and Path(command[2]).samefile(SMOKE.path)


@pytest.mark.parametrize(("rank", "setting"), [(1, 8), (8, 8), (9, 16), (65, 128), (512, 512), (600, 600)])
def test_the_rank_setting_holds_the_largest_adapter(tmp_path: Path, rank: int, setting: int) -> None:
    folder = tmp_path
    write_json(folder / "adapter_config.json", {"r": rank})
    assert LaunchSpec(HUB, {"one": folder}).max_rank == setting


def test_without_adapters_there_is_no_lora(sample_adapters: SampleAdapters) -> None:
    assert "--enable-lora" not in vllm_files(LaunchSpec(HUB, {}), host="h", port=1)["vllm.sh"]
    assert "enable_lora" not in ray_files(LaunchSpec(HUB, {}), adapters_at="s3://b/c")["ray.yaml"]


def test_ray_loads_the_adapters_from_the_given_url(sample_adapters: SampleAdapters) -> None:
    (application,) = yaml.safe_load(
        ray_files(LaunchSpec(HUB, sample_adapters.folders), adapters_at="s3://b/c")["ray.yaml"]
    )["applications"]
    (model,) = application["args"]["llm_configs"]
    assert application["import_path"] == "ray.serve.llm:build_openai_app"
    assert model["lora_config"]["dynamic_lora_loading_path"] == "s3://b/c"
    assert model["engine_kwargs"]["revision"] == HUB.revision and model["engine_kwargs"]["enable_lora"] is True
