"""An engine is loaded by its name, and only this engine is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from support.sample_adapters import SMOKE, chat_request

from bilora.errors import BadData
from bilora.inference.engines import ENGINES, EngineOptions, load_local_engine
from bilora.inference.torch.engine import TorchEngine
from bilora.params import Inference


def options(cache: Path) -> EngineOptions:
    return EngineOptions(batch_size=1, cache=cache)


def test_params_accept_the_names_of_the_engines() -> None:
    assert get_args(Inference.model_fields["engine"].annotation) == tuple(ENGINES)


def test_a_name_loads_its_engine(tmp_path: Path) -> None:
    engine = load_local_engine("torch", SMOKE, {}, options(tmp_path))
    assert isinstance(engine, TorchEngine)
    assert engine.generate("base", [chat_request("sum", 2, ignore_eos=True)])[0].output_tokens == 2


def test_an_unknown_name_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"there is no engine 'vllm'; choose one of torch, llamacpp\."):
        load_local_engine("vllm", SMOKE, {}, options(tmp_path))


def test_llamacpp_without_a_quantization_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the extra llamacpp is not installed")
    with pytest.raises(BadData, match="has no GGUF file, so engine llamacpp needs a quantization"):
        load_local_engine("llamacpp", SMOKE, {}, options(tmp_path))


@pytest.mark.parametrize("module", ["bilora.inference.torch", "bilora.inference.llamacpp"])
def test_the_engines_do_not_import_each_other(module: str) -> None:
    other = {"bilora.inference.torch": "llamacpp", "bilora.inference.llamacpp": "torch"}[module]
    program = f"import sys, {module}.engine; print(*(name for name in sys.modules if 'inference.{other}' in name))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_no_engine_is_imported_before_it_is_chosen() -> None:
    program = "import sys, bilora.inference.engines; print(*(n for n in sys.modules if n in ('torch', 'llama_cpp')))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
