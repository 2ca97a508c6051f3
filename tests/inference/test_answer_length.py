"""`ignore_eos` and `min_tokens` decide when an answer may end, in every engine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import pytest
from support.sample_adapters import SMOKE, chat_request, prompts

from bilora.bases.base import Base
from bilora.bases.kinds.folder import FolderBase
from bilora.bases.loading import LoadedBase
from bilora.inference.detokenizer import IncrementalDetokenizer
from bilora.inference.engine import ContinuousBatchingEngine
from bilora.inference.llamacpp.engine import LlamaEngine
from bilora.inference.torch.engine import TorchEngine
from bilora.records import Completion
from bilora.requests import Chunk, Request, Submission, Token
from bilora.storage import write_json

TOKENS = 60


@dataclass(frozen=True)
class Ending:
    """A base whose greedy answer to `text` ends after five tokens, with one of its many EOS tokens."""

    base: Base
    text: str
    eos_ids: frozenset[int]


def eos_ids_of(loaded: LoadedBase) -> list[int]:
    return loaded.stop_ids


@pytest.fixture(scope="module")
def ending(another_smoke: LoadedBase, tmp_path_factory: pytest.TempPathFactory) -> Ending:
    """The smoke base with the tokens of an answer as EOS tokens, except the first four."""
    engine, usual = TorchEngine(another_smoke, {}, batch_size=8), set(eos_ids_of(another_smoke))
    requests = [chat_request(text, TOKENS, ignore_eos=True) for text in prompts(20)]
    for request, (_, ids, _) in zip(requests, generate_all(engine, *requests), strict=True):
        if ids[4] not in ids[:4] and not set(ids[:4]) & usual:
            folder = tmp_path_factory.mktemp("ending") / "models"
            shutil.copytree(SMOKE.id, folder)
            eos_ids = sorted(set(ids) - set(ids[:4]))
            write_json(folder / "generation_config.json", {"eos_token_id": eos_ids})
            base = FolderBase.at(folder)
            return Ending(base, request.sample_id, frozenset(eos_ids_of(base.load(training=False))))
    raise AssertionError("no answer fits")


@pytest.fixture(scope="module", params=["torch", "llamacpp"])
def engine(
    request: pytest.FixtureRequest, ending: Ending, tmp_path_factory: pytest.TempPathFactory
) -> ContinuousBatchingEngine[Any]:
    """Both engines of that base, in 32-bit."""
    if request.param == "torch":
        return TorchEngine(ending.base.load(training=False), {}, batch_size=8)
    pytest.importorskip("llama_cpp", reason='llama.cpp is not installed: pip install "bilora[llamacpp]"')
    return LlamaEngine(ending.base, "f32", {}, batch_size=8, cache=tmp_path_factory.mktemp("gguf"))


def generate_all(
    engine: ContinuousBatchingEngine[Any], *requests: Request
) -> list[tuple[Completion, list[int], list[Token]]]:
    """Return each completion, its token ids and its reported tokens; all requests are streamed in one batch."""
    events: list[SimpleQueue[Any]] = [SimpleQueue() for _ in requests]
    jobs = engine.prepare(
        [Submission("base", request, queue.put) for request, queue in zip(requests, events, strict=True)]
    )
    engine.submit(jobs)
    results = []
    for job, queue in zip(jobs, events, strict=True):
        text, tokens = "", []
        while isinstance(event := queue.get(timeout=60), Chunk):
            text += event.text
            tokens += event.tokens
        assert isinstance(event, Completion), event
        assert event.text == text
        results.append((event, job.output_ids, tokens))
    return results


def test_an_ignored_end_token_is_a_token_like_others(engine: ContinuousBatchingEngine[Any], ending: Ending) -> None:
    [(short, _, _)] = generate_all(engine, chat_request(ending.text, TOKENS))
    assert (short.output_tokens, short.finish) == (5, "stop")
    [(completion, ids, tokens)] = generate_all(engine, chat_request(ending.text, TOKENS, ignore_eos=True, logprobs=1))
    assert (completion.output_tokens, completion.finish) == (TOKENS, "length")
    assert ids[4] in ending.eos_ids
    assert completion.text == engine._tokenizer.decode(ids, skip_special_tokens=True)
    assert completion.text.startswith(short.text) and completion.text != short.text
    assert len(tokens) == TOKENS and tokens[4].top_logprobs == ((tokens[4].text, tokens[4].logprob),)
    (whole,) = engine.generate("base", [chat_request(ending.text, TOKENS, ignore_eos=True)])
    assert (whole.text, whole.output_tokens, whole.finish) == (completion.text, TOKENS, "length")


def test_the_last_token_is_text_even_if_it_is_an_ignored_end_token(
    engine: ContinuousBatchingEngine[Any], ending: Ending
) -> None:
    (completion,) = engine.generate("base", [chat_request(ending.text, 5, ignore_eos=True)])
    [(streamed, ids, _)] = generate_all(engine, chat_request(ending.text, 5, ignore_eos=True))
    assert ids[-1] in ending.eos_ids
    assert completion.text == streamed.text == engine._tokenizer.decode(ids, skip_special_tokens=True)
    assert completion.finish == streamed.finish == "length"


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_before_min_tokens_no_end_token_is_chosen(
    engine: ContinuousBatchingEngine[Any], ending: Ending, temperature: float
) -> None:
    def token_ids(min_tokens: int) -> list[list[int]]:
        sampling: dict[str, Any] = {"min_tokens": min_tokens, "temperature": temperature}
        seeds = range(8 if temperature else 1)
        requests = [
            chat_request(ending.text, TOKENS, **sampling, seed=seed, frequency_penalty=seed / 4) for seed in seeds
        ]
        return [ids for _, ids, _ in generate_all(engine, *requests)]

    assert min(map(len, token_ids(0))) <= 20
    for ids in token_ids(20):
        assert len(ids) > 20
        assert not set(ids[:20]) & ending.eos_ids


def test_max_tokens_end_an_answer_in_any_case(engine: ContinuousBatchingEngine[Any], ending: Ending) -> None:
    for min_tokens in (12, 20):
        [(completion, ids, _)] = generate_all(engine, chat_request(ending.text, 12, min_tokens=min_tokens))
        assert (len(ids), completion.output_tokens, completion.finish) == (12, 12, "length")
        assert not set(ids) & ending.eos_ids


@pytest.mark.parametrize(("min_tokens", "ends"), [(4, True), (5, False)])
def test_the_token_after_min_tokens_may_end_the_answer(
    engine: ContinuousBatchingEngine[Any], ending: Ending, min_tokens: int, ends: bool
) -> None:
    [(_, ids, _)] = generate_all(engine, chat_request(ending.text, TOKENS, min_tokens=min_tokens))
    assert (len(ids) == 5) is ends


def test_neighbours_in_the_batch_end_as_they_did(engine: ContinuousBatchingEngine[Any], ending: Ending) -> None:
    limits: list[dict[str, Any]] = [{}, {"min_tokens": TOKENS}, {"ignore_eos": True}, {}]
    requests = [chat_request(ending.text, TOKENS, **limit) for limit in limits]
    completions = [completion for completion, _, _ in generate_all(engine, *requests)]
    assert [completion.output_tokens for completion in completions] == [5, TOKENS, TOKENS, 5]
    assert completions[0].text == completions[3].text != completions[1].text != completions[2].text
    whole = engine.generate_mixed([("base", request) for request in requests])
    assert [completion.text for completion in whole] == [completion.text for completion in completions]


def test_logprobs_are_the_models_own_however_the_choice_was_limited(
    engine: ContinuousBatchingEngine[Any], ending: Ending
) -> None:
    [(_, _, unlimited)] = generate_all(engine, chat_request(ending.text, TOKENS, ignore_eos=True, logprobs=2))
    [(_, _, limited)] = generate_all(engine, chat_request(ending.text, TOKENS, min_tokens=10, logprobs=2))
    assert [token.logprob for token in limited[:4]] == pytest.approx(
        [token.logprob for token in unlimited[:4]], abs=1e-4
    )
    assert [text for text, _ in limited[4].top_logprobs] == [text for text, _ in unlimited[4].top_logprobs]
    assert limited[4].logprob < limited[4].top_logprobs[0][1] == pytest.approx(unlimited[4].logprob, abs=1e-4)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_stop_string_within_min_tokens_is_text(
    engine: ContinuousBatchingEngine[Any], ending: Ending, streamed: bool
) -> None:
    def generate(**sampling: Any) -> Completion:
        request = chat_request(ending.text, 30, ignore_eos=True, **sampling)
        return generate_all(engine, request)[0][0] if streamed else engine.generate("base", [request])[0]

    whole = generate(min_tokens=30)
    stop = whole.text[4:6]  # of the first four tokens

    stopped = generate(stop=(stop,))
    assert (stopped.text, stopped.finish) == (whole.text[: whole.text.index(stop)], "stop")
    needed = stopped.output_tokens or 0
    assert generate(stop=(stop,), min_tokens=needed - 1).text == stopped.text
    assert (generate(stop=(stop,), min_tokens=needed).output_tokens or 0) > needed
    assert generate(stop=(stop,), min_tokens=30).text == whole.text


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The smoke base's."""
    return SMOKE.tokenizer()


@pytest.mark.parametrize(
    ("stop", "min_tokens", "text"),
    [
        (("ab",), 0, "x"),
        (("ab",), 3, "xabc"),  # the first match ends within the first three tokens, so the next one counts
        (("ab", "abc"), 3, "x"),  # it begins within them and ends later
        (("ab", "abd"), 3, "xabc"),  # text that is pending for the second string is not the first string
        (("bca",), 3, "xa"),
        (("ab",), 7, "xabcabx"),
    ],
)
def test_a_stop_string_counts_where_it_ends(tokenizer: Any, stop: tuple[str, ...], min_tokens: int, text: str) -> None:
    ids = [tokenizer.convert_tokens_to_ids(letter) for letter in "xabcabx"]
    assert tokenizer.decode(ids) == "xabcabx"
    detokenizer = IncrementalDetokenizer(tokenizer, stop, min_tokens=min_tokens)
    text_so_far = ""
    for token in ids:
        text_so_far += detokenizer.add(token)
        if detokenizer.stopped:
            break
    assert text_so_far + ("" if detokenizer.stopped else detokenizer.flush()) == text
