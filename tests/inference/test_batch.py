"""Sequences in a batch: sampling parameters, stop strings, the queue, cancellation and errors."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.random_adapters import write_random_adapter
from support.sample_adapters import SMOKE, SampleAdapters, chat_request, greedy_answer, prompts

from bilora.bases.loading import LoadedBase
from bilora.bases.prompt import encode_prompt
from bilora.errors import BadData, Busy, UnknownModel
from bilora.inference.decoder import Decoder
from bilora.inference.detokenizer import IncrementalDetokenizer
from bilora.inference.torch import engine as local
from bilora.inference.torch.batch import TorchBatch
from bilora.inference.torch.engine import TorchEngine
from bilora.inference.torch.kv_cache import BLOCK_TOKENS, KVCache
from bilora.records import Completion
from bilora.requests import Chunk, Request, SamplingParams, Submission
from bilora.storage import read_json, write_json

LONG = 200


def prepare(engine: TorchEngine, system: str, request: Request) -> tuple[Any, SimpleQueue[Any]]:
    """Return a job and the queue of its events."""
    events: SimpleQueue[Any] = SimpleQueue()
    [job] = engine.prepare([Submission(system, request, events.put)])
    return job, events


def receive(events: SimpleQueue[Any]) -> tuple[list[Chunk], Completion]:
    chunks = []
    while isinstance(event := events.get(timeout=30), Chunk):
        chunks.append(event)
    assert isinstance(event, Completion), event
    return chunks, event


def unstoppable(engine: TorchEngine) -> Request:
    """Return a request with a long answer."""
    requests = [chat_request(text, LONG) for text in prompts(16)]
    longest = max(engine.generate("base", requests), key=lambda completion: completion.output_tokens)
    assert longest.output_tokens == LONG
    return chat_request(longest.sample_id, LONG)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("start", [1, 3, 7])
@pytest.mark.parametrize("length", [1, 2, 6])
def test_an_answer_ends_before_the_first_stop_string(
    mixed: TorchEngine, streamed: bool, start: int, length: int
) -> None:
    (whole,) = mixed.generate("base", [chat_request("write", 30)])
    stop = whole.text[start : start + length]
    request = chat_request("write", 30, stop=(stop, "never in the text"))
    if streamed:
        job, events = prepare(mixed, "base", request)
        mixed.submit([job])
        chunks, completion = receive(events)
        assert "".join(chunk.text for chunk in chunks) == completion.text
    else:
        (completion,) = mixed.generate("base", [request])
    assert completion.text == whole.text[: whole.text.index(stop)]
    assert completion.finish == "stop" and completion.output_tokens < whole.output_tokens


def test_text_that_might_have_become_a_stop_string_is_not_lost(mixed: TorchEngine) -> None:
    (whole,) = mixed.generate("base", [chat_request("write", 12)])
    (completion,) = mixed.generate("base", [chat_request("write", 12, stop=(whole.text[-3:] + "§",))])
    assert (completion.text, completion.finish) == (whole.text, whole.finish)


def test_characters_come_whole(another_smoke: LoadedBase) -> None:
    text = "naïve 🙂 漢字 e\N{COMBINING ACUTE ACCENT} end"
    ids = another_smoke.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > len(text)
    writer = IncrementalDetokenizer(another_smoke.tokenizer)
    chunks = [writer.add(token) for token in ids]
    assert "".join(chunks) + writer.flush() == text
    assert not any("\N{REPLACEMENT CHARACTER}" in chunk for chunk in chunks)
    cut = IncrementalDetokenizer(another_smoke.tokenizer)
    cut_text = "".join(cut.add(token) for token in ids[:4]) + cut.flush()
    assert cut_text == another_smoke.tokenizer.decode(ids[:4])


def test_likelihoods_are_those_of_the_model(mixed: TorchEngine, another_smoke: LoadedBase) -> None:
    request = chat_request("sort", logprobs=3)
    job, events = prepare(mixed, "base", request)
    mixed.submit([job])
    chunks, completion = receive(events)
    tokens = [token for chunk in chunks for token in chunk.tokens]
    assert "".join(token.text for token in tokens) == completion.text
    ids = encode_prompt(another_smoke.tokenizer, request.messages)
    for token in tokens:
        with torch.inference_mode():
            logs = another_smoke.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        best = logs.topk(3)
        assert token.logprob == pytest.approx(float(best.values[0]), abs=1e-4)
        assert [log for _, log in token.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert token.top_logprobs[0] == (token.text, token.logprob)
        ids.append(int(best.indices[0]))


def test_time_to_the_first_token_and_usage_are_reported(mixed: TorchEngine) -> None:
    job, events = prepare(mixed, "codegen", chat_request("sum"))
    mixed.submit([job])
    _, completion = receive(events)
    assert (
        completion.prompt_tokens
        == job.prompt_tokens
        == len(encode_prompt(mixed._tokenizer, chat_request("sum").messages))
    )
    assert completion.first_token_s is not None and 0 < completion.first_token_s < completion.latency_s


def test_a_cancelled_row_is_gone_at_the_next_token(mixed: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    job, events = prepare(mixed, "base", unstoppable(mixed))
    other, others = prepare(mixed, "codegen", chat_request("sum", 40))
    steps: list[list[str]] = []
    step = TorchBatch.step

    def watched(self: TorchBatch) -> None:
        steps.append([row.system for row in self.sequences if row.cancelled])
        step(self)

    monkeypatch.setattr(TorchBatch, "step", watched)
    mixed.submit([job, other])
    assert isinstance(events.get(timeout=30), Chunk)
    job.cancel()
    receive(others)
    assert sum(map(len, steps)) <= 1
    while not events.empty():
        assert isinstance(events.get(), Chunk)


def test_a_cancelled_request_that_waits_is_never_begun(mixed: TorchEngine) -> None:
    request = unstoppable(mixed)
    busy = [prepare(mixed, "base", request) for _ in range(8)]
    waiting, events = prepare(mixed, "base", chat_request("sum"))
    mixed.submit([job for job, _ in busy] + [waiting])
    waiting.cancel()
    for job, _ in busy:
        job.cancel()
    while mixed.queue_depth() != (0, 0):
        time.sleep(0.01)
    assert events.empty()


def test_a_full_queue_takes_all_of_a_request_or_nothing(another_smoke: LoadedBase) -> None:
    request = unstoppable(TorchEngine(another_smoke, {}, batch_size=16))
    engine = TorchEngine(another_smoke, {}, batch_size=1, max_waiting=2)
    running, events = prepare(engine, "base", request)
    engine.submit([running])
    events.get(timeout=30)
    first, _ = prepare(engine, "base", chat_request("one"))
    engine.submit([first])
    pair = [prepare(engine, "base", chat_request("two"))[0] for _ in range(2)]
    with pytest.raises(Busy, match="1 requests are waiting"):
        engine.submit(pair)
    assert engine.queue_depth() == (1, 1)
    with pytest.raises(BadData, match="4 answers at once are too many; request at most 3"):
        engine.submit([*pair, *pair])
    engine.submit(pair[:1])
    for job in (running, first, *pair):
        job.cancel()
    while engine.queue_depth() != (0, 0):
        time.sleep(0.01)


def test_a_machine_without_another_thread_is_busy_and_the_next_request_tries_again(
    mixed: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lost, unheard = prepare(mixed, "base", chat_request("one"))
    with monkeypatch.context() as during, pytest.raises(Busy, match="another thread"):
        during.setattr(threading.Thread, "start", none_left)
        mixed.submit([lost])
    assert mixed.generate("base", [chat_request("two")])[0].text
    assert unheard.empty()


def test_a_flood_for_one_adapter_does_not_hold_up_the_other(
    sample_adapters: SampleAdapters, another_smoke: LoadedBase
) -> None:
    folders = {name: sample_adapters.folders[name] for name in ("codegen", "docstring")}
    engine = TorchEngine(another_smoke, folders, batch_size=2)
    ended: list[str] = []
    flood = engine.prepare(
        [Submission("codegen", chat_request(text), lambda _: ended.append("codegen")) for text in prompts(30)]
    )
    events: SimpleQueue[Any] = SimpleQueue()
    [late] = engine.prepare([Submission("docstring", chat_request("sum"), events.put)])
    engine.submit([*flood, late])
    receive(events)
    assert engine.queue_depth()[1] > 20
    for job in flood:
        job.cancel()
    while engine.queue_depth() != (0, 0):
        time.sleep(0.01)


def test_an_adapter_that_is_dropped_finishes_what_it_began(mixed: TorchEngine, sample_adapters: SampleAdapters) -> None:
    job, events = prepare(mixed, "codegen", chat_request("sum of numbers"))
    mixed.unload_adapter("codegen")
    mixed.submit([job])
    assert receive(events)[1].text == sample_adapters.answer("codegen", "sum of numbers")
    with pytest.raises(UnknownModel, match="loaded: base, docstring"):
        mixed.generate("codegen", [chat_request("sum")])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"use_dora": True}, "use_dora"), ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"o_proj": 2}}, "rank_pattern"), ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "peft_type"), ({"kasa_config": {"a": 1}}, "kasa_config"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_not_plain_lora_is_refused_by_name(
    mixed: TorchEngine, sample_adapters: SampleAdapters, tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    config = read_json(sample_adapters.folders["codegen"] / "adapter_config.json") | change
    write_json(tmp_path / "adapter_config.json", config)
    save_file(
        load_file(sample_adapters.folders["codegen"] / "adapter_model.safetensors"),
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(BadData, match=f"only plain LoRA is supported.*{word}"):
        mixed.load_adapter("codegen", tmp_path)
    assert mixed.generate("codegen", [chat_request("sum")])[0].text == sample_adapters.answer("codegen", "sum")


def test_weights_that_are_no_numbers_are_refused(
    mixed: TorchEngine, sample_adapters: SampleAdapters, tmp_path: Path
) -> None:
    write_json(tmp_path / "adapter_config.json", read_json(sample_adapters.folders["codegen"] / "adapter_config.json"))
    tensors = load_file(sample_adapters.folders["codegen"] / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BadData, match="not finite"):
        mixed.load_adapter("codegen", tmp_path)


def test_rslora_s_scale_is_honoured(another_smoke: LoadedBase, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = write_random_adapter(tmp_path / "one", SMOKE, ["qkv_proj"], seed=9)
    write_json(folder / "adapter_config.json", read_json(folder / "adapter_config.json") | {"use_rslora": True})
    merged = PeftModel.from_pretrained(SMOKE.load(training=False).model, str(folder)).merge_and_unload().eval()
    (completion,) = TorchEngine(another_smoke, {"one": folder}, batch_size=1).generate("one", [chat_request("sum")])
    assert completion.text == greedy_answer(merged, another_smoke.tokenizer, chat_request("sum"))


def attention_configs() -> dict[str, Any]:
    from transformers import Phi3Config, Qwen2Config

    sizes: dict[str, Any] = {
        "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 4, "max_position_embeddings": 256, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 3,
    }  # fmt: skip
    return {
        "grouped": Phi3Config(**sizes),
        "window": Phi3Config(**sizes, sliding_window=9),
        "both": Qwen2Config(**sizes, use_sliding_window=True, sliding_window=9, max_window_layers=2),
    }


@pytest.mark.parametrize("kind", ["grouped", "window", "both"])
def test_every_kind_of_attention_is_the_models_own(kind: str, another_smoke: LoadedBase) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(attention_configs()[kind], attn_implementation="sdpa").eval()
    for parameter in model.parameters():
        parameter.data *= 4  # far from the ties of a fresh model
    engine = TorchEngine(LoadedBase(model, another_smoke.tokenizer, ""), {}, batch_size=4)
    requests = [chat_request(text, 20) for text in prompts(10)]
    answers = [completion.text for completion in engine.generate("base", requests)]
    assert answers == [greedy_answer(model, another_smoke.tokenizer, request) for request in requests]


def test_rows_share_a_cache_that_they_never_outgrow_and_a_long_one_gets_its_turn(
    sample_adapters: SampleAdapters, another_smoke: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_kv_capacity", lambda _: 400)
    folders = {name: sample_adapters.folders[name] for name in ("codegen", "docstring")}
    engine = TorchEngine(another_smoke, folders, batch_size=16)
    steps: list[tuple[int, int]] = []
    step = TorchBatch.step

    def watched(self: TorchBatch) -> None:
        steps.append((len(self.sequences), max(sequence.max_total_tokens for sequence in self.sequences)))
        step(self)

    monkeypatch.setattr(TorchBatch, "step", watched)
    texts = prompts(60)
    ended: SimpleQueue[str] = SimpleQueue()
    flood = [
        Submission("codegen", chat_request(text, 2 + i % 7), lambda _: ended.put("short"))
        for i, text in enumerate(texts)
    ]
    long = Submission("docstring", chat_request("sum " * 150, 100), lambda _: ended.put("long"))
    engine.submit(engine.prepare([*flood[:20], long, *flood[20:]], streamed=False))
    order = [ended.get(timeout=60) for _ in range(61)]
    assert order.index("long") < 20
    assert max(rows for rows, _ in steps) > 3
    assert all(rows == 1 or rows * longest <= 400 for rows, longest in steps)
    assert [completion.text for completion in engine.generate("codegen", [chat_request(text) for text in texts])] == [
        sample_adapters.answer("codegen", text) for text in texts
    ]


def test_memory_is_made_for_the_rows_that_are_there_not_for_those_that_were() -> None:
    cache = KVCache(16)

    def read(*lengths: int) -> None:
        new = torch.ones(len(lengths), 1, max(lengths), 1)
        cache.begin_prefill(list(lengths))
        cache.update(new, new, 0)
        cache.end_prefill()

    def allocated_tokens() -> int:
        rows, _, columns, _ = cache._layers[0][0].shape
        return int(rows * columns)

    read(*[BLOCK_TOKENS] * 16)
    for _ in range(15):
        cache.remove(0)
    read(100 * BLOCK_TOKENS)
    assert allocated_tokens() <= 2.5 * 2 * 100 * BLOCK_TOKENS
    cache.remove(1)
    read(*[BLOCK_TOKENS] * 15)
    assert allocated_tokens() <= 2.5 * 16 * BLOCK_TOKENS
    assert float(cache._layers[0][0][:16, :, :BLOCK_TOKENS].sum()) == 16 * BLOCK_TOKENS


def test_an_answer_ends_where_the_context_does(mixed: TorchEngine) -> None:
    text = "sum " * 100
    [job] = mixed.prepare([Submission("base", chat_request(text), print)])
    left = mixed.context_length - job.prompt_tokens
    assert 0 < left < mixed.context_length
    (completion,) = mixed.generate("base", [chat_request(text, 10 * mixed.context_length, temperature=3.0)])
    assert completion.output_tokens <= left
    with pytest.raises(BadData, match=f"the prompt has [0-9]+ tokens; at most {mixed.context_length - 1} are possible"):
        mixed.generate("base", [chat_request(text * 50)])


def test_requests_of_one_submission_use_one_version(
    mixed: TorchEngine, sample_adapters: SampleAdapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = TorchEngine.encode

    def reloading(self: TorchEngine, request: Request) -> list[int]:
        self.load_adapter("codegen", sample_adapters.folders["codegen2"])
        return read(self, request)

    before = mixed.models()["codegen"]
    with monkeypatch.context() as during:
        during.setattr(TorchEngine, "encode", reloading)
        jobs = mixed.prepare([Submission("codegen", chat_request(text), print) for text in ("sum", "sort", "sum")])
    assert {job.sha256 for job in jobs} == {before} != {mixed.models()["codegen"]}
    assert jobs[0].prompt_ids == jobs[2].prompt_ids != jobs[1].prompt_ids


def test_tokens_are_spelled_as_they_read_within_a_text(phi3: Any) -> None:
    text = "return a + b  # naïve\n"
    ids = phi3(text, add_special_tokens=False)["input_ids"]
    assert "".join(phi3.decode([token]) for token in ids) != text
    decoder = Decoder(phi3, [])
    assert "".join(decoder._token_text(token) for token in ids).lstrip(" ") == text
    assert [decoder._token_text(token) for token in ids][1:4] == [" a", " +", " b"]


def test_prompts_of_one_pass_are_of_about_one_length(mixed: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[list[int]] = []
    read = TorchBatch._prefill_group

    def noted(batch: TorchBatch, sequences: Any) -> None:
        passes.append([sequence.prompt_tokens for sequence in sequences])
        read(batch, sequences)

    monkeypatch.setattr(TorchBatch, "_prefill_group", noted)
    requests = [
        Request(str(length), (), SamplingParams(max_tokens=3), text=" a" * length) for length in (5, 200, 40, 190)
    ]
    together = mixed.generate("base", requests)
    assert [len(lengths) for lengths in passes] == [2, 2] and min(passes[0]) > max(passes[1])
    assert [completion.text for completion in together] == [
        mixed.generate("base", [request])[0].text for request in requests
    ]
