"""JSON schemas as grammars: which tokens may come next in an answer that fits a schema."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from bilora.errors import BadSchema
from bilora.inference.grammar_trial import grammar_library, new_matcher, trial_problem
from bilora.inference.json_schema import read_schema

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher, LLTokenizer

_CHECKED_SCHEMAS = 256
_ERROR_CHARS = 300
_MAX_DIGITS = 24
"""In a row, unless the schema wants more: a 64-bit float has 17."""
_OPTIONS = {"whitespace_flexible": False, "json_allowed_escapes": 'nrbtf\\"'}
"""Small models end their answers where no white space is allowed; with `\\u0061` a name could be written twice."""


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a base: as the library reads them, which end an answer, and which are nothing but digits or zeros.

    Shape of the last two: (tokens,), bool.
    """

    tokenizer: LLTokenizer
    eos_ids: Sequence[int]
    digits: torch.Tensor
    zeros: torch.Tensor


class JsonMatcher:
    """Where one answer is in its grammar."""

    def __init__(self, matcher: LLMatcher, tokens: _Tokens) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._last = b""
        self.error: BadSchema | None = None

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """Return which tokens may come next, shape (vocabulary,), bool; end tokens only where the answer may end.

        A small model may not end a number: after many digits more of them may come only if nothing else can, and zeros
        only if no other digit can. If no token can come, `error` says why, and all are allowed. A model may have more
        logits than its tokenizer has tokens, or fewer.
        """
        import torch

        scores = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)[:vocabulary]
        allowed = torch.zeros(vocabulary, dtype=torch.bool)
        allowed[: len(scores)] = scores > 0
        allowed[[token for token in self._tokens.eos_ids if token < vocabulary]] = self._matcher.is_accepting()
        if len(self._last) == _MAX_DIGITS and self._last.isdigit():
            for unending in (self._tokens.zeros, self._tokens.digits):
                others = allowed.clone()
                others[: len(scores)] &= ~unending[: len(scores)]
                allowed = others if others.any() else allowed
        if self._matcher.is_error() or not allowed.any():
            self._fail()
            allowed[:] = True
        return allowed

    def add(self, token: int) -> bool:
        """Take the next token, which is no end token; return whether none can follow it, so that the answer ends."""
        if self.error is None and not self._matcher.consume_token(token):
            self._fail()
        self._last = (self._last + self._tokens.tokenizer.decode_bytes([token]))[-_MAX_DIGITS:]
        return self.error is not None or self._matcher.is_stopped()

    def _fail(self) -> None:
        problem = _one_line(self._matcher.get_error()) or "this base has no token that can come next"
        self.error = BadSchema(f"the answer cannot go on ({problem}); simplify the schema.")


class JsonGrammars:
    """Makes matchers for the answers of one base; any thread may call.

    Only that a schema can be compiled is remembered: copies of a compiled grammar share the states of its lexer, whose
    number is limited, so that one answer could end another.
    """

    def __init__(self, read_tokenizer: Callable[[], str], eos_ids: Iterable[int]) -> None:
        """Make grammars in which each of `eos_ids` ends an answer; `read_tokenizer` returns a tokenizer.json."""
        self._read_tokenizer = read_tokenizer
        self._eos_ids = sorted(eos_ids)
        self._lock = threading.Lock()
        self._tokens: _Tokens | None = None
        self._checked = lru_cache(_CHECKED_SCHEMAS)(self._check)

    def matcher(self, schema: str) -> JsonMatcher:
        """Return a matcher at the beginning of an answer that fits the schema of this JSON text.

        Raises:
            BadSchema: answers cannot be held to all of the schema, or it is too large or too complex.
            NotReady: the extra is not installed.
        """
        grammar = self._checked(schema)
        with self._lock:
            tokens = self._tokens = self._tokens or self._read_tokens()
        matcher = new_matcher(tokens.tokenizer, grammar)
        if matcher.is_error():
            raise _refusal(matcher.get_error())
        return JsonMatcher(matcher, tokens)

    def _read_tokens(self) -> _Tokens:
        import torch

        tokenizer = grammar_library().LLTokenizer(self._read_tokenizer(), eos_token=self._eos_ids)
        texts = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]
        digits, zeros = (
            [text.isdigit() for text in texts],
            [text.isdigit() and not text.strip(b"0") for text in texts],
        )
        return _Tokens(tokenizer, self._eos_ids, torch.tensor(digits), torch.tensor(zeros))

    @staticmethod
    def _check(schema: str) -> str:
        """Return the grammar of a schema that can be honoured."""
        library, text = grammar_library(), json.dumps(read_schema(schema))
        try:
            grammar: str = library.LLMatcher.grammar_from_json_schema(text, overrides=_OPTIONS)
        except ValueError as error:
            raise BadSchema(f"it cannot be read ({_one_line(str(error))}).") from None
        if problem := trial_problem(grammar):
            raise _refusal(problem)
        return grammar


def _refusal(problem: str) -> BadSchema:
    return BadSchema(f"it cannot be honoured ({_one_line(problem)}); leave this out or simplify it.")


def _one_line(error: str) -> str:
    return " ".join(error.replace("<non-verbose/>", "").split())[:_ERROR_CHARS].rstrip(". ")
