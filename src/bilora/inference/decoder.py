"""The state of one sequence, and what every engine does with the logits of its next token."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

from bilora.errors import BadSchema
from bilora.inference.detokenizer import IncrementalDetokenizer
from bilora.inference.json_grammar import JsonMatcher
from bilora.inference.sampling import (
    apply_penalties,
    keep_tokens,
    make_rng,
    mask_tokens,
    sample_tokens,
    token_logprobs,
)
from bilora.records import Completion
from bilora.requests import Chunk, OnEvent, Request, SamplingParams, Token

if TYPE_CHECKING:
    import torch

    from bilora.bases.tokenizer import Tokenizer


class AdapterVersion(Protocol):
    """One version of an adapter in memory. It never changes; another version is another object."""

    @property
    def sha256(self) -> str:
        """Return the hash of its two files."""
        ...


AdapterT = TypeVar("AdapterT", bound=AdapterVersion)


@dataclass(eq=False)
class SequenceState(Generic[AdapterT]):
    """One request from its preparation to its completion; implements `protocols.Job`.

    `adapter` is the version that was loaded when the request was prepared, None for the base. `streamed`: whether
    the caller wants every chunk. `matcher`: where its answer is in the grammar of its JSON schema, if it has one.
    `compute_s` is its equal share of every step that it took part in. `completed`: whether its last event, the
    completion or an error, has been sent.
    """

    system: str
    adapter: AdapterT | None
    request: Request
    prompt_ids: list[int]
    on_event: OnEvent
    streamed: bool
    matcher: JsonMatcher | None = None
    started_at: float = field(default_factory=time.perf_counter)
    cancelled: bool = False
    completed: bool = False
    output_ids: list[int] = field(default_factory=list)
    text_parts: list[str] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    first_token_s: float | None = None
    compute_s: float = 0.0
    rng: torch.Generator | None = None
    detokenizer: IncrementalDetokenizer | None = None

    @property
    def sampling(self) -> SamplingParams:
        """How its tokens are chosen."""
        return self.request.sampling

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt in tokens."""
        return len(self.prompt_ids)

    @property
    def scores_prompt(self) -> bool:
        """Whether the probabilities of the prompt's tokens are wanted."""
        return self.request.echo and self.sampling.logprobs is not None

    @property
    def max_total_tokens(self) -> int:
        """How many tokens prompt and answer may have together."""
        return len(self.prompt_ids) + self.sampling.max_tokens

    @property
    def sha256(self) -> str:
        """Which adapter answers; empty for the base."""
        return self.adapter.sha256 if self.adapter else ""

    @property
    def error(self) -> BadSchema | None:
        """Why its answer cannot go on; None if it can."""
        return self.matcher.error if self.matcher else None

    def allow(self, tokens: int) -> None:
        """Set how long the answer may become; only before it is submitted."""
        self.request = replace(self.request, sampling=replace(self.sampling, max_tokens=tokens))

    def cancel(self) -> None:
        """End it at the next token."""
        self.cancelled = True


class Decoder:
    """Chooses tokens and turns them into text, by the same rules for every engine."""

    def __init__(self, tokenizer: Tokenizer, eos_ids: Iterable[int]) -> None:
        """Decode with `tokenizer`; each of `eos_ids` ends an answer."""
        self._tokenizer = tokenizer
        self._eos_ids = frozenset(eos_ids)
        self._anchor: list[int] = tokenizer(".", add_special_tokens=False)["input_ids"][-1:]

    def begin(self, sequences: Sequence[SequenceState[AdapterT]], began: float) -> None:
        """Prepare sequences for their first token; the prefill began at `began`."""
        for sequence in sequences:
            sampling = sequence.sampling
            if not sequence.streamed:  # its latency is computing time only, without the time in the queue
                sequence.started_at = began
            sequence.rng = make_rng(sampling, sequence.prompt_ids)
            if sequence.streamed or sampling.stop or sequence.request.echo:
                sequence.detokenizer = IncrementalDetokenizer(
                    self._tokenizer, sampling.stop, min_tokens=sampling.min_tokens
                )
            if sequence.request.echo and sampling.logprobs is None:
                self._send(sequence, Chunk(self._prompt_text(sequence)))

    def echo(self, sequence: SequenceState[AdapterT], logits: Iterable[torch.Tensor]) -> torch.Tensor:
        """Begin an answer with its prompt and the log probabilities of the prompt's tokens.

        Args:
            logits: those that follow each token of the prompt, in parts of shape (tokens, vocabulary).

        Returns:
            The last of them, shape (1, vocabulary), 32 bit.
        """
        ids = sequence.prompt_ids
        tokens = [Token(self._token_text(ids[0]), None)]
        for part in logits:
            rows = part.float()
            following = ids[len(tokens) : len(tokens) + len(rows)]
            tokens += self._tokens(following, rows[: len(following)], sequence.sampling.logprobs or 0)
        self._send(sequence, Chunk(self._prompt_text(sequence), tuple(tokens)))
        return rows[-1:]

    def extend(self, sequences: Sequence[SequenceState[AdapterT]], logits: torch.Tensor, began: float) -> None:
        """Give each sequence its next token.

        1) Apply penalties; mask the end tokens of sequences that are too short to end, and tokens that a JSON schema
        excludes. 2) Choose the tokens. 3) Record each one, decide whether the sequence ends with it, and send its text.
        A sequence that is to have no token ends without one.

        Args:
            logits: shape (sequences, vocabulary), 32 bit.
            began: when the pass that computed them began, on `time.perf_counter`.
        """
        adjusted = apply_penalties(logits, [(one.sampling, one.prompt_ids, one.output_ids) for one in sequences])
        endless = [(index, one) for index, one in enumerate(sequences) if self._masks_end(one)]
        adjusted = mask_tokens(
            adjusted, {index: {*self._eos_ids, *one.sampling.stop_token_ids} for index, one in endless}
        )
        matchers = [(index, one.matcher) for index, one in enumerate(sequences) if one.matcher is not None]
        adjusted = keep_tokens(adjusted, {index: matcher.allowed(logits.shape[-1]) for index, matcher in matchers})
        tokens = sample_tokens(adjusted, [(sequence.sampling, sequence.rng) for sequence in sequences])
        now = time.perf_counter()
        for sequence, token, row in zip(sequences, tokens, logits, strict=True):
            sequence.compute_s += (now - began) / len(sequences)
            if not sequence.sampling.max_tokens:
                sequence.finish = "length"
                continue
            if sequence.first_token_s is None:
                sequence.first_token_s = now - sequence.started_at
            sequence.output_ids.append(token)
            if self._ends(sequence, token) or (sequence.matcher is not None and sequence.matcher.add(token)):
                sequence.finish = "stop"
            elif len(sequence.output_ids) >= sequence.sampling.max_tokens:
                sequence.finish = "length"
            if sequence.detokenizer and not sequence.error:
                self._detokenize(sequence, sequence.detokenizer, token, row)

    def completion(self, sequence: SequenceState[AdapterT]) -> Completion:
        """Return the answer of a finished sequence."""
        output_ids = sequence.output_ids
        text_ids = output_ids[:-1] if output_ids and self._ends(sequence, output_ids[-1]) else output_ids
        return Completion(
            sample_id=sequence.request.sample_id,
            system=sequence.system,
            text="".join(sequence.text_parts)
            if sequence.detokenizer
            else self._tokenizer.decode(text_ids, skip_special_tokens=True),
            prompt_tokens=sequence.prompt_tokens,
            output_tokens=len(output_ids),
            latency_s=time.perf_counter() - sequence.started_at if sequence.streamed else sequence.compute_s,
            finish=sequence.finish or "length",
            first_token_s=sequence.first_token_s,
        )

    def _masks_end(self, sequence: SequenceState[AdapterT]) -> bool:
        """Return whether the sequence must not end yet; in a grammar an ignored end token would be no token at all."""
        sampling = sequence.sampling
        return len(sequence.output_ids) < sampling.min_tokens or (sequence.matcher is not None and sampling.ignore_eos)

    def _ends(self, sequence: SequenceState[AdapterT], token: int) -> bool:
        sampling = sequence.sampling
        return token in sampling.stop_token_ids or (token in self._eos_ids and not sampling.ignore_eos)

    def _detokenize(
        self, sequence: SequenceState[AdapterT], detokenizer: IncrementalDetokenizer, token: int, logits: torch.Tensor
    ) -> None:
        """Turn the last token into text, end the sequence at a stop string, and send the chunk if it is streamed."""
        ended = self._ends(sequence, token)
        text = "" if ended else detokenizer.add(token)
        if not detokenizer.stopped and sequence.finish:
            text += detokenizer.flush()
        if detokenizer.stopped:
            sequence.finish = "stop"
        tokens: list[Token] = []
        # After an echo the end is reported too: who scores prompts cuts the one new token off (lm_eval does).
        if sequence.sampling.logprobs is not None and (not ended or sequence.request.echo):
            tokens = self._tokens([token], logits[None], sequence.sampling.logprobs)
        if ended:
            tokens = [replace(one, text="") for one in tokens]
        self._send(sequence, Chunk(text, tuple(tokens), len(sequence.output_ids)))

    def _send(self, sequence: SequenceState[AdapterT], chunk: Chunk) -> None:
        sequence.text_parts.append(chunk.text)
        if sequence.streamed and (chunk.text or chunk.tokens):
            sequence.on_event(chunk)

    def _prompt_text(self, sequence: SequenceState[AdapterT]) -> str:
        text: str = self._tokenizer.decode(sequence.prompt_ids)
        return text

    def _tokens(self, tokens: Sequence[int], logits: torch.Tensor, top: int) -> list[Token]:
        """Return tokens with their probabilities, and the likeliest in their places; logits (tokens, vocabulary)."""
        return [
            Token(self._token_text(token), logprob, tuple((self._token_text(one), its) for one, its in likeliest))
            for token, (logprob, likeliest) in zip(tokens, token_logprobs(logits, tokens, top), strict=True)
        ]

    def _token_text(self, token: int) -> str:
        """Return a token as it reads inside a text: some tokenizers drop the space of a first token."""
        before: str = self._tokenizer.decode(self._anchor)
        text: str = self._tokenizer.decode([*self._anchor, token])
        return text.removeprefix(before)
