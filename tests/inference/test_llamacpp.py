"""The llama.cpp engine gives the same answers as the torch engine; files are converted once."""

from __future__ import annotations

import ctypes
import gc
import json
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.concurrent_requests import count_wrong_answers, shuffled_requests
from support.random_adapters import write_random_adapter
from support.sample_adapters import SMOKE, SampleAdapters, chat_request, greedy_answer, prompts
from support.tiny_bases import tiny_base

from bilora.bases.base import Converter
from bilora.bases.kinds.folder import FolderBase
from bilora.errors import BadData, BiloraError
from bilora.inference import memory
from bilora.inference.llamacpp import amx_check, bindings
from bilora.inference.llamacpp import engine as llama_engine
from bilora.inference.llamacpp.bindings import LlamaContext
from bilora.inference.llamacpp.engine import LlamaBatch, LlamaEngine
from bilora.inference.torch.engine import TorchEngine
from bilora.params import Quantization
from bilora.protocols import Progress
from bilora.records import Completion
from bilora.requests import Chunk, Request, Submission, Token
from bilora.storage import read_json, write_json

ADAPTERS = ("codegen", "docstring")


@pytest.fixture(scope="module")
def library() -> Any:
    """The module that the extra installs."""
    return pytest.importorskip("llama_cpp", reason='llama.cpp is not installed: pip install "bilora[llamacpp]"')


@pytest.fixture(scope="module")
def gguf_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this module's converted files."""
    return tmp_path_factory.mktemp("gguf")


def engine_of(
    sample_adapters: SampleAdapters, gguf_cache: Path, quantization: Quantization = "f32", **extra: Any
) -> LlamaEngine:
    folders = {name: sample_adapters.folders[name] for name in ADAPTERS}
    return LlamaEngine(SMOKE, quantization, folders, batch_size=8, cache=gguf_cache, **extra)


@pytest.fixture
def engine(library: Any, sample_adapters: SampleAdapters, gguf_cache: Path) -> Iterator[LlamaEngine]:
    """An engine in 32-bit with both adapters; at the end no request runs."""
    engine = engine_of(sample_adapters, gguf_cache)
    yield engine
    assert engine.queue_depth() == (0, 0)


def streamed(engine: LlamaEngine | TorchEngine, system: str, request: Request) -> tuple[list[Token], Completion]:
    events: SimpleQueue[Any] = SimpleQueue()
    engine.submit(engine.prepare([Submission(system, request, events.put)]))
    tokens: list[Token] = []
    while isinstance(event := events.get(timeout=60), Chunk):
        tokens += event.tokens
    assert isinstance(event, Completion), event
    return tokens, event


def test_every_answer_is_its_own_adapters(engine: LlamaEngine, sample_adapters: SampleAdapters) -> None:
    requests = shuffled_requests(200)
    requests += random.Random(2).choices(requests, k=60)
    assert count_wrong_answers(engine, sample_adapters, requests, reload_at=300) == 0


@pytest.mark.parametrize("keyed", [True, False])
def test_a_prompt_s_cache_without_the_adapter_in_its_key_would_be_seen(
    engine: LlamaEngine, sample_adapters: SampleAdapters, monkeypatch: pytest.MonkeyPatch, keyed: bool
) -> None:
    """A bug of well-known servers: the prefix cache of an equal prompt is used again with another adapter."""
    batch: Any = engine._scheduler._batch
    base_context, adapter_contexts = batch._base, {row: adapter.context for row, adapter in engine._adapters.items()}
    left: list[tuple[list[int], str]] = [([], "")]
    logits = LlamaContext.logits

    def reusing(self: LlamaContext, tokens: Sequence[tuple[int, int, int]], last: int) -> Any:
        ids, (_, first, row) = [token for token, _, _ in tokens], tokens[0]
        system, context = batch.sequences[-1].system, base_context
        use_only(context, adapter_contexts.get(system))
        if first == 0:
            (before, maker), known = left[0], 0
            usable = len(ids) - 1 if maker == system or not keyed else 0
            while known < usable and before[known : known + 1] == ids[known : known + 1]:
                known += 1
            context._llama.llama_memory_seq_rm(context._memory, row, known, -1)
            left[0], tokens = (ids, system), tokens[known:]
        return logits(context, tokens, last)

    monkeypatch.setattr(LlamaContext, "remove", lambda self, row: None)
    monkeypatch.setattr(LlamaContext, "logits", reusing)
    wrong = 0
    for text in prompts(10):
        for system in ("base", *ADAPTERS):
            (completion,) = engine.generate(system, [chat_request(text)])
            wrong += completion.text != sample_adapters.answer(system, text)
    assert wrong == 0 if keyed else wrong > 5


def use_only(context: LlamaContext, adapters: LlamaContext | None) -> None:
    """Set the LoRA of another context, or none, as an engine with one context for all adapters would."""
    llama, handles = context._llama, context.model._handles
    lora = next((lora for handle, lora in handles.values() if adapters and handle is adapters._handle), None)
    if lora is None:
        llama.llama_set_adapters_lora(context._handle, None, 0, None)
    else:
        loras = (llama.llama_adapter_lora_p_ctypes * 1)(lora)
        llama.llama_set_adapters_lora(context._handle, loras, 1, (ctypes.c_float * 1)(1.0))


def test_one_adapter_for_the_whole_batch_would_be_seen(
    engine: LlamaEngine, sample_adapters: SampleAdapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch: Any = engine._scheduler._batch
    monkeypatch.setattr(LlamaBatch, "_context", lambda self, row: batch._base)
    assert count_wrong_answers(engine, sample_adapters, shuffled_requests(30)) > 20


def test_versions_that_come_and_go_leave_nothing_behind(engine: LlamaEngine, sample_adapters: SampleAdapters) -> None:
    batch: Any = engine._scheduler._batch
    for turn, text in enumerate(prompts(30)):
        version = ("codegen", "codegen2")[turn % 2]
        engine.load_adapter("codegen", sample_adapters.folders[version])
        (completion,) = engine.generate("codegen", [chat_request(text)])
        assert completion.text == sample_adapters.answer(version, text)
    gc.collect()
    (completion,) = engine.generate("base", [chat_request("sum")])
    assert completion.text == sample_adapters.answer("base", "sum")
    assert len(batch._base.model._handles) == 3


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_a_seed_gives_the_answer_that_torch_gives(
    engine: LlamaEngine, sample_adapters: SampleAdapters, top_p: float
) -> None:
    requests = [
        (system, chat_request(text, temperature=0.9, top_p=top_p, seed=seed))
        for seed, (system, text) in enumerate(shuffled_requests(12))
    ]
    folders = {name: sample_adapters.folders[name] for name in ADAPTERS}
    local = TorchEngine(SMOKE.load(training=False), folders, batch_size=8)
    expected = [completion.text for completion in local.generate_mixed(requests)]
    assert (
        sum(
            text != sample_adapters.answer(system, request.sample_id)
            for text, (system, request) in zip(expected, requests, strict=True)
        )
        > 20
    )
    assert [completion.text for completion in engine.generate_mixed(requests)] == expected
    assert [engine.generate(system, [request])[0].text for system, request in requests] == expected


def test_stop_strings_likelihoods_and_counts_are_torch_s(engine: LlamaEngine, another_smoke: Any) -> None:
    local = TorchEngine(another_smoke, {}, batch_size=1)
    (whole,) = local.generate("base", [chat_request("write", 30)])
    request = chat_request("write", 30, stop=(whole.text[7:10],), logprobs=3)
    tokens, completion = streamed(engine, "base", request)
    expected, reference = streamed(local, "base", request)
    timings = {"latency_s", "first_token_s"}
    assert completion.model_dump(exclude=timings) == reference.model_dump(exclude=timings)
    assert completion.finish == "stop" and completion.first_token_s is not None
    assert 0 < completion.first_token_s < completion.latency_s
    assert [token.text for token in tokens] == [token.text for token in expected]
    assert [token.logprob for token in tokens] == pytest.approx([token.logprob for token in expected], abs=1e-4)
    assert [[log for _, log in token.top_logprobs] for token in tokens] == [
        pytest.approx([log for _, log in token.top_logprobs], abs=1e-4) for token in expected
    ]


def test_a_prompt_longer_than_one_pass_is_read_whole(
    engine: LlamaEngine, sample_adapters: SampleAdapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bindings, "PASS_TOKENS", 16)
    texts = prompts(20)
    assert [completion.text for completion in engine.generate("codegen", [chat_request(text) for text in texts])] == [
        sample_adapters.answer("codegen", text) for text in texts
    ]


def test_an_answer_ends_where_the_context_does(engine: LlamaEngine) -> None:
    text = "sum " * 200
    [job] = engine.prepare([Submission("base", chat_request(text), print)])
    remaining = engine.context_length - job.prompt_tokens
    assert 0 < remaining < engine.context_length
    (completion,) = engine.generate("base", [chat_request(text, 10 * engine.context_length, temperature=3.0)])
    assert completion.output_tokens <= remaining
    with pytest.raises(BadData, match=f"tokens; at most {engine.context_length - 1} are possible"):
        engine.generate("base", [chat_request(text * 9)])


def test_a_failed_pass_is_reported_and_forgotten(
    engine: LlamaEngine, sample_adapters: SampleAdapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("llama.cpp failed with code -3")

    with monkeypatch.context() as during:
        during.setattr(LlamaContext, "_decode", failing)
        with pytest.raises(RuntimeError, match="code -3"):
            engine.generate("base", [chat_request("sum"), chat_request("list")])
    assert engine.generate("codegen", [chat_request("sum")])[0].text == sample_adapters.answer("codegen", "sum")


# Conversion


@pytest.mark.parametrize(("quantization", "near"), [("f16", 0.02), ("q8_0", 0.2), ("q4_k_m", 1.0)])
def test_a_quantised_base_answers_nearly_alike(
    library: Any, sample_adapters: SampleAdapters, gguf_cache: Path, quantization: Quantization, near: float
) -> None:
    quantised, exact = engine_of(sample_adapters, gguf_cache, quantization), engine_of(sample_adapters, gguf_cache)
    for system in ("base", *ADAPTERS):
        request = chat_request("sum", 1, logprobs=1)
        (quantised_tokens, _), (exact_tokens, _) = (streamed(each, system, request) for each in (quantised, exact))
        assert quantised_tokens[0].logprob == pytest.approx(exact_tokens[0].logprob, abs=near)
    size = {path.name.split("-")[2]: path.stat().st_size for path in gguf_cache.glob("base-*")}
    assert size[quantization] < size["f32"]


class RecordedBars:
    """Progress bars that record titles and counts."""

    def __init__(self, fail_after: float = float("inf")) -> None:
        self.titles: list[str] = []
        self.count = self.total = 0
        self._fail_after = fail_after

    def __call__(self, title: str, total: int) -> AbstractContextManager[Progress]:
        self.titles.append(title)
        self.total += total
        return nullcontext(self._add)

    def _add(self, count: int) -> None:
        self.count += count
        if self.count > self._fail_after:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("quantization", ["f32", "q4_k_m"])
def test_files_are_made_once_and_progress_is_reported(
    library: Any, sample_adapters: SampleAdapters, tmp_path: Path, quantization: Quantization
) -> None:
    first, second = RecordedBars(), RecordedBars()
    engine_of(sample_adapters, tmp_path, quantization, progress_bars=first)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert first.titles[0] == f"Converting {SMOKE.id} to {quantization}" and first.count == first.total
    engine_of(sample_adapters, tmp_path, quantization, progress_bars=second)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert len(list(tmp_path.glob("*.gguf"))) == 3 and second.titles == []


def test_a_build_that_dies_on_weights_repacked_gets_them_as_they_are(
    library: Any, sample_adapters: SampleAdapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_amx = SimpleNamespace(__file__=library.__file__, llama_print_system_info=lambda: b"AMX_INT8 = 1")
    monkeypatch.setattr(amx_check, "library", lambda: with_amx)
    monkeypatch.setattr(amx_check, "TRIAL", "import os; 'HF_TOKEN' in os.environ or os.abort()")
    monkeypatch.setenv("HF_TOKEN", "secret")
    engine = engine_of(sample_adapters, tmp_path, "q8_0")
    assert "without AMX" in engine.mode and engine.generate("codegen", [chat_request("hello")])[0].output_tokens
    monkeypatch.setattr(amx_check, "TRIAL", "raise SystemExit")
    assert "without AMX" in engine_of(sample_adapters, tmp_path, "q8_0").mode
    (outcome_file,) = tmp_path.glob("trial-*")
    write_json(outcome_file, {"build": "an older one", "survived": False})
    assert "without AMX" not in engine_of(sample_adapters, tmp_path, "q8_0").mode
    assert read_json(outcome_file)["survived"]


@pytest.mark.parametrize("quantization", ["f32", "q8_0"])
def test_an_interrupted_conversion_leaves_nothing(
    library: Any, sample_adapters: SampleAdapters, tmp_path: Path, quantization: Quantization
) -> None:
    with pytest.raises(OSError, match="No space"):
        engine_of(sample_adapters, tmp_path, quantization, progress_bars=RecordedBars(fail_after=5))
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True, kw_only=True)
class WithItsFile(FolderBase):
    """A base that comes with a GGUF file."""

    file: Path

    def gguf(self, quantization: Quantization | None, convert: Converter) -> Path:
        return self.file if quantization is None else convert(self, quantization)


def test_the_file_that_a_base_comes_with_is_served_as_it_is(
    library: Any, sample_adapters: SampleAdapters, gguf_cache: Path, tmp_path: Path
) -> None:
    converted = engine_of(sample_adapters, gguf_cache, "q8_0")
    (file,) = gguf_cache.glob("base-*-q8_0-*")
    base = WithItsFile(id=SMOKE.id, path=SMOKE.path, file=shutil.copy(file, tmp_path / "own.gguf"))
    folders = {name: sample_adapters.folders[name] for name in ADAPTERS}
    engine = LlamaEngine(base, None, folders, batch_size=8, cache=tmp_path / "gguf_cache")
    requests = [(system, chat_request(text, 20)) for text in prompts(5) for system in ("base", *ADAPTERS)]
    answers = [[completion.text for completion in each.generate_mixed(requests)] for each in (engine, converted)]
    assert answers[0] == answers[1] and engine.mode.startswith("llama.cpp, own.gguf, ")
    cached = {path.name.split("-")[0] for path in (tmp_path / "gguf_cache").iterdir()}
    assert cached - {"trial"} == {"adapter"}  # a processor with AMX is tried out with a file of its own
    LlamaEngine(base, "f16", {}, batch_size=1, cache=tmp_path / "gguf_cache")
    assert len(list((tmp_path / "gguf_cache").glob("base-*-f16-*"))) == 1


def test_the_trial_of_a_file_in_a_package_is_recorded_in_the_cache(
    library: Any, sample_adapters: SampleAdapters, gguf_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_amx = SimpleNamespace(__file__=library.__file__, llama_print_system_info=lambda: b"AMX_INT8 = 1")
    monkeypatch.setattr(amx_check, "library", lambda: with_amx)
    monkeypatch.setattr(amx_check, "TRIAL", "raise SystemExit")
    engine_of(sample_adapters, gguf_cache, "q8_0")
    (file,) = gguf_cache.glob("base-*-q8_0-*")
    package = tmp_path / "package"
    package.mkdir()
    base = WithItsFile(id=SMOKE.id, path=SMOKE.path, file=shutil.copy(file, package / "own.gguf"))
    LlamaEngine(base, None, {}, batch_size=1, cache=tmp_path / "gguf_cache")
    assert [path.name for path in package.iterdir()] == ["own.gguf"]
    assert [path.name for path in (tmp_path / "gguf_cache").iterdir()] == ["trial-own.json"]


def test_another_base_is_another_file(library: Any, sample_adapters: SampleAdapters, tmp_path: Path) -> None:
    other = tmp_path / "models" / "other"
    shutil.copytree(SMOKE.id, other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.5
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    for base in (SMOKE, FolderBase.at(other)):
        LlamaEngine(base, "f32", {}, batch_size=1, cache=tmp_path / "gguf_cache")
    assert len(list((tmp_path / "gguf_cache").iterdir())) == 2


@pytest.mark.parametrize(
    "config", [{"sliding_window": 150}, {"tie_word_embeddings": True}, {"rope_theta": 500.0}], ids=str
)
def test_phi3_s_other_forms_are_converted_too(library: Any, tmp_path: Path, config: dict[str, Any]) -> None:
    base = FolderBase.at(tiny_base(tmp_path / "models", "phi3", **config))
    assert len(list(Path(base.id).glob("*.safetensors"))) > 2
    adapter = write_random_adapter(tmp_path / "one", base, ["o_proj", "down_proj"], seed=4)
    engine = LlamaEngine(base, "f32", {"one": adapter}, batch_size=4, cache=tmp_path / "gguf_cache")
    local = TorchEngine(base.load(training=False), {"one": adapter}, batch_size=4)
    requests = [chat_request(text, 20) for text in prompts(8)]
    for system in ("base", "one"):
        expected = [completion.text for completion in local.generate(system, requests)]
        assert [completion.text for completion in engine.generate(system, requests)] == expected
    assert engine.context_length == config.get("sliding_window", 256)


def test_rslora_s_scale_is_honoured(library: Any, gguf_cache: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = write_random_adapter(tmp_path / "one", SMOKE, ["qkv_proj"], seed=9)
    write_json(folder / "adapter_config.json", read_json(folder / "adapter_config.json") | {"use_rslora": True})
    merged = PeftModel.from_pretrained(SMOKE.load(training=False).model, str(folder)).merge_and_unload().eval()
    engine = LlamaEngine(SMOKE, "f32", {"one": folder}, batch_size=1, cache=gguf_cache)
    (completion,) = engine.generate("one", [chat_request("sum")])
    assert completion.text == greedy_answer(merged, SMOKE.load(training=False).tokenizer, chat_request("sum"))


LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 16, "long_factor": [2.0] * 16}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "gpt2"}, "supports phi3, llama, qwen2, and this base is gpt2"),
        ({"rope_parameters": LONG}, "computes longrope positions differently"),
    ],
)
def test_what_the_two_engines_would_compute_otherwise_is_refused(
    library: Any, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    base = tmp_path / "models"
    shutil.copytree(SMOKE.id, base)
    config = json.loads((base / "config.json").read_text()) | change
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadData, match=sentence):
        LlamaEngine(FolderBase.at(base), "f32", {}, batch_size=1, cache=tmp_path / "gguf_cache")
    assert not (tmp_path / "gguf_cache").exists()


def test_an_adapter_of_another_base_is_refused(
    engine: LlamaEngine, sample_adapters: SampleAdapters, tmp_path: Path
) -> None:
    base = FolderBase.at(tiny_base(tmp_path / "models", "phi3", hidden_size=128))
    other = write_random_adapter(tmp_path / "one", base, ["o_proj"], seed=4)
    with pytest.raises(BadData, match="does not match the base"):
        engine.load_adapter("codegen", other)
    assert engine.generate("codegen", [chat_request("sum")])[0].text == sample_adapters.answer("codegen", "sum")


def test_an_adapter_beyond_16_bit_is_refused(
    library: Any, sample_adapters: SampleAdapters, gguf_cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "large"
    shutil.copytree(sample_adapters.folders["codegen"], folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor * 1e6 for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(BadData, match="too large for 16-bit"):
        LlamaEngine(SMOKE, "q8_0", {"codegen": folder}, batch_size=1, cache=gguf_cache)


# Memory and disk


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with 1 MiB of free memory."""
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 1024 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")


def test_too_little_memory_is_said_before_anything_is_made(
    library: Any, sample_adapters: SampleAdapters, tmp_path: Path, little_memory: None
) -> None:
    with pytest.raises(BiloraError, match=r"needs 0\.0 GiB of memory and 0\.0 GiB are free\. End other programs"):
        engine_of(sample_adapters, tmp_path / "gguf_cache")
    assert not (tmp_path / "gguf_cache").exists()


def test_too_little_disk_is_said_before_anything_is_made(
    library: Any, sample_adapters: SampleAdapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
    with pytest.raises(BiloraError, match=r"on the disk of .* Delete files"):
        engine_of(sample_adapters, tmp_path / "gguf_cache")
    assert not (tmp_path / "gguf_cache").exists()


def test_a_container_s_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable: 8000000 kB\n")
    for name, text in {"memory.max": "5000", "memory.current": "4000", "memory.stat": "inactive_file 300\n"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_memory() == 1300
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory() == 8_000_000 * 1024


def test_with_little_memory_rows_wait_for_their_share_of_it(
    library: Any, sample_adapters: SampleAdapters, gguf_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_engine, "_spare_bytes", lambda weights: 0)
    engine = engine_of(sample_adapters, gguf_cache)
    batch: Any = engine._scheduler._batch
    assert batch._kv_capacity == engine.context_length
    reserved: list[int] = []
    step = LlamaBatch.step

    def watched(self: LlamaBatch) -> None:
        for adapter in {sequence.adapter for sequence in self.sequences}:
            reserved.append(
                sum(sequence.prompt_tokens + 200 for sequence in self.sequences if sequence.adapter is adapter)
            )
        step(self)

    monkeypatch.setattr(LlamaBatch, "step", watched)
    requests = [(system, chat_request(text, 200)) for system in ("base", *ADAPTERS) for text in prompts(6)]
    texts = [completion.text for completion in engine.generate_mixed(requests)]
    assert engine.context_length // 2 < max(reserved) <= engine.context_length
    monkeypatch.undo()
    assert texts == [completion.text for completion in engine_of(sample_adapters, gguf_cache).generate_mixed(requests)]


def test_without_the_extra_one_sentence_says_what_to_do(
    sample_adapters: SampleAdapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    bindings.library.cache_clear()
    with pytest.raises(BiloraError, match=r'pip install "bilora\[llamacpp\]"'):
        engine_of(sample_adapters, tmp_path)
    bindings.library.cache_clear()
