"""The state of a sequence, and the decoding rules that all local engines share."""

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
    make_rng,
    mask_disallowed,
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
    """One immutable version of an adapter in memory."""

    @property
    def sha256(self) -> str:
        """Hash of the adapter's two files."""
        ...


AdapterT = TypeVar("AdapterT", bound=AdapterVersion)


@dataclass(eq=False)
class SequenceState(Generic[AdapterT]):
    """The state of one request, from preparation to completion; implements `protocols.Job`.

    `adapter`: the version that was loaded when the request was prepared, None for the base. `streamed`: whether
    chunks are sent. `matcher`: the state of the answer in the grammar of its JSON schema, if it has one. `compute_s`:
    the sequence's equal shares of the steps' durations. `completed`: whether the last event, the completion or an
    error, has been sent.
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
        """The request's sampling parameters."""
        return self.request.sampling

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt."""
        return len(self.prompt_ids)

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether the log probabilities of the prompt's tokens are requested."""
        return self.request.echo and self.sampling.logprobs is not None

    @property
    def max_total_tokens(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        return len(self.prompt_ids) + self.sampling.max_tokens

    @property
    def sha256(self) -> str:
        """Hash of the adapter's version; empty for the base."""
        return self.adapter.sha256 if self.adapter else ""

    @property
    def error(self) -> BadSchema | None:
        """The reason why the answer cannot continue; None if it can."""
        return self.matcher.error if self.matcher else None

    def set_max_tokens(self, tokens: int) -> None:
        """Set the maximum length of the answer; only before it is submitted."""
        self.request = replace(self.request, sampling=replace(self.sampling, max_tokens=tokens))

    def cancel(self) -> None:
        """Stop at the next token."""
        self.cancelled = True


class Decoder:
    """Samples and detokenizes tokens, by the same rules for every engine."""

    def __init__(self, tokenizer: Tokenizer, eos_ids: Iterable[int]) -> None:
        """Decode with `tokenizer`; each of `eos_ids` ends an answer."""
        self._tokenizer = tokenizer
        self._eos_ids = frozenset(eos_ids)
        self._preceding_ids: list[int] = tokenizer(".", add_special_tokens=False)["input_ids"][-1:]

    def begin(self, sequences: Sequence[SequenceState[AdapterT]], prefill_start: float) -> None:
        """Prepare sequences for their first token; the prefill started at `prefill_start`."""
        for sequence in sequences:
            sampling = sequence.sampling
            if not sequence.streamed:  # its latency excludes the time in the queue
                sequence.started_at = prefill_start
            sequence.rng = make_rng(sampling, sequence.prompt_ids)
            if sequence.streamed or sampling.stop or sequence.request.echo:
                sequence.detokenizer = IncrementalDetokenizer(
                    self._tokenizer, sampling.stop, min_tokens=sampling.min_tokens
                )
            if sequence.request.echo and sampling.logprobs is None:
                self._send(sequence, Chunk(self._prompt_text(sequence)))

    def echo(self, sequence: SequenceState[AdapterT], logits: Iterable[torch.Tensor]) -> torch.Tensor:
        """Start an answer with its prompt and the log probabilities of the prompt's tokens.

        Args:
            logits: the logits after each token of the prompt, in parts of shape (tokens, vocabulary).

        Returns:
            The logits after the last token, shape (1, vocabulary), 32-bit.
        """
        ids = sequence.prompt_ids
        tokens = [Token(self._token_text(ids[0]), None)]
        for part in logits:
            rows = part.float()
            next_ids = ids[len(tokens) : len(tokens) + len(rows)]
            tokens += self._tokens(next_ids, rows[: len(next_ids)], sequence.sampling.logprobs or 0)
        self._send(sequence, Chunk(self._prompt_text(sequence), tuple(tokens)))
        return rows[-1:]

    def extend(self, sequences: Sequence[SequenceState[AdapterT]], logits: torch.Tensor, pass_start: float) -> None:
        """Sample the next token of each sequence and append it.

        A sequence with `max_tokens` 0 ends without a token.

        Args:
            logits: shape (sequences, vocabulary), 32-bit.
            pass_start: the start of the forward pass, on `time.perf_counter`.
        """
        # 1) Apply penalties; mask the EOS tokens of sequences that are too short to end, and what a schema excludes.
        adjusted = apply_penalties(logits, [(seq.sampling, seq.prompt_ids, seq.output_ids) for seq in sequences])
        too_short = [(index, seq) for index, seq in enumerate(sequences) if self._masks_end(seq)]
        adjusted = mask_tokens(
            adjusted, {index: {*self._eos_ids, *seq.sampling.stop_token_ids} for index, seq in too_short}
        )
        matchers = [(index, seq.matcher) for index, seq in enumerate(sequences) if seq.matcher is not None]
        adjusted = mask_disallowed(adjusted, {index: matcher.allowed(logits.shape[-1]) for index, matcher in matchers})
        # 2) Sample.
        tokens = sample_tokens(adjusted, [(seq.sampling, seq.rng) for seq in sequences])
        now = time.perf_counter()
        # 3) Append each token, decide whether the sequence ends with it, and send its text.
        for sequence, token, row in zip(sequences, tokens, logits, strict=True):
            sequence.compute_s += (now - pass_start) / len(sequences)
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
        """Return the completion of a finished sequence."""
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
        """Return whether the sequence must not end yet. In a grammar an ignored EOS token is masked: it is no text."""
        sampling = sequence.sampling
        return len(sequence.output_ids) < sampling.min_tokens or (sequence.matcher is not None and sampling.ignore_eos)

    def _ends(self, sequence: SequenceState[AdapterT], token: int) -> bool:
        sampling = sequence.sampling
        return token in sampling.stop_token_ids or (token in self._eos_ids and not sampling.ignore_eos)

    def _detokenize(
        self, sequence: SequenceState[AdapterT], detokenizer: IncrementalDetokenizer, token: int, logits: torch.Tensor
    ) -> None:
        """Send the text of the last token, and end the sequence at a stop string."""
        ended = self._ends(sequence, token)
        text = "" if ended else detokenizer.add(token)
        if not detokenizer.stopped and sequence.finish:
            text += detokenizer.flush()
        if detokenizer.stopped:
            sequence.finish = "stop"
        tokens: list[Token] = []
        # After an echo EOS is reported too: clients that score prompts (lm_eval) cut off the last token.
        if sequence.sampling.logprobs is not None and (not ended or sequence.request.echo):
            tokens = self._tokens([token], logits[None], sequence.sampling.logprobs)
        if ended:
            tokens = [replace(reported, text="") for reported in tokens]
        self._send(sequence, Chunk(text, tuple(tokens), len(sequence.output_ids)))

    def _send(self, sequence: SequenceState[AdapterT], chunk: Chunk) -> None:
        sequence.text_parts.append(chunk.text)
        if sequence.streamed and (chunk.text or chunk.tokens):
            sequence.on_event(chunk)

    def _prompt_text(self, sequence: SequenceState[AdapterT]) -> str:
        text: str = self._tokenizer.decode(sequence.prompt_ids)
        return text

    def _tokens(self, tokens: Sequence[int], logits: torch.Tensor, top: int) -> list[Token]:
        """Return tokens with log probabilities and the `top` likeliest alternatives; logits (tokens, vocabulary)."""
        return [
            Token(self._token_text(token), logprob, tuple((self._token_text(other), p) for other, p in likeliest))
            for token, (logprob, likeliest) in zip(tokens, token_logprobs(logits, tokens, top), strict=True)
        ]

    def _token_text(self, token: int) -> str:
        """Return a token's text after another token: some tokenizers drop the space of a first token."""
        prefix: str = self._tokenizer.decode(self._preceding_ids)
        text: str = self._tokenizer.decode([*self._preceding_ids, token])
        return text.removeprefix(prefix)
