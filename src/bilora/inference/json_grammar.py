"""Grammars of JSON schemas: which tokens may come next in an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from bilora.errors import BadSchema
from bilora.inference.grammar_compiler import compile_error, grammar_library, new_matcher
from bilora.inference.json_schema import read_schema

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher, LLTokenizer

_CHECKED_SCHEMAS = 256
_ERROR_CHARS = 300
_MAX_DIGITS = 24
"""Maximum digits in a row, unless the schema requires more: a 64-bit float has 17."""
_OPTIONS = {"whitespace_flexible": False, "json_allowed_escapes": 'nrbtf\\"'}
"""Without white space small models end their answers; with `\\u0061` an object could repeat a name."""


@dataclass(frozen=True)
class _Tokens:
    """The vocabulary of a base: llguidance's tokenizer, the EOS tokens, and masks of digit tokens and of zero tokens.

    Shape of the masks: (tokens,), bool.
    """

    tokenizer: LLTokenizer
    eos_ids: Sequence[int]
    digits: torch.Tensor
    zeros: torch.Tensor


class JsonMatcher:
    """The state of one answer in its grammar."""

    def __init__(self, matcher: LLMatcher, tokens: _Tokens) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._last_bytes = b""
        self.error: BadSchema | None = None

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """Return which tokens may come next, shape (vocabulary,), bool.

        If no token can come next, `error` is set and all tokens are allowed.
        """
        import torch

        # 1) What the grammar allows; the model may have more logits than the tokenizer has tokens, or fewer.
        scores = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)[:vocabulary]
        allowed = torch.zeros(vocabulary, dtype=torch.bool)
        allowed[: len(scores)] = scores > 0
        # 2) EOS tokens, only where the answer may end.
        allowed[[token for token in self._tokens.eos_ids if token < vocabulary]] = self._matcher.is_accepting()
        # 3) A small model may never end a number: after many digits exclude zeros, then all digits, if others remain.
        if len(self._last_bytes) == _MAX_DIGITS and self._last_bytes.isdigit():
            for endless in (self._tokens.zeros, self._tokens.digits):
                remaining = allowed.clone()
                remaining[: len(scores)] &= ~endless[: len(scores)]
                allowed = remaining if remaining.any() else allowed
        if self._matcher.is_error() or not allowed.any():
            self._fail()
            allowed[:] = True
        return allowed

    def add(self, token: int) -> bool:
        """Add the answer's next token, not EOS; return whether the answer ends because no token can follow."""
        if self.error is None and not self._matcher.consume_token(token):
            self._fail()
        self._last_bytes = (self._last_bytes + self._tokens.tokenizer.decode_bytes([token]))[-_MAX_DIGITS:]
        return self.error is not None or self._matcher.is_stopped()

    def _fail(self) -> None:
        problem = _one_line(self._matcher.get_error()) or "this base has no token that can come next"
        self.error = BadSchema(f"the answer cannot continue ({problem}); simplify the schema.")


class JsonGrammars:
    """Creates matchers for the answers of one base; thread-safe.

    Checked schemas are cached, compiled grammars are not: copies share the states of one lexer, whose number is
    limited, so that one answer could end another.
    """

    def __init__(self, read_tokenizer: Callable[[], str], eos_ids: Iterable[int]) -> None:
        """Create grammars whose EOS tokens are `eos_ids`; `read_tokenizer` returns the text of a tokenizer.json."""
        self._read_tokenizer = read_tokenizer
        self._eos_ids = sorted(eos_ids)
        self._lock = threading.Lock()
        self._tokens: _Tokens | None = None
        self._checked = lru_cache(_CHECKED_SCHEMAS)(self._check)

    def matcher(self, schema: str) -> JsonMatcher:
        """Return a matcher at the beginning of an answer that must match the schema of this JSON text.

        Raises:
            BadSchema: the schema is not fully supported, too large or too complex.
            NotReady: the extra is not installed.
        """
        grammar = self._checked(schema)
        with self._lock:
            tokens = self._tokens = self._tokens or self._read_tokens()
        matcher = new_matcher(tokens.tokenizer, grammar)
        if matcher.is_error():
            raise _unsupported(matcher.get_error())
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
        """Return the grammar of a supported schema."""
        library, text = grammar_library(), json.dumps(read_schema(schema))
        try:
            grammar: str = library.LLMatcher.grammar_from_json_schema(text, overrides=_OPTIONS)
        except ValueError as error:
            raise BadSchema(f"it cannot be read ({_one_line(str(error))}).") from None
        if problem := compile_error(grammar):
            raise _unsupported(problem)
        return grammar


def _unsupported(problem: str) -> BadSchema:
    return BadSchema(f"it is not supported ({_one_line(problem)}); remove this or simplify it.")


def _one_line(error: str) -> str:
    return " ".join(error.replace("<non-verbose/>", "").split())[:_ERROR_CHARS].rstrip(". ")
