"""Whether a grammar can be compiled, tried in a process of its own.

The library bounds the work of each token, but a schema of a few hundred characters can keep its compiler busy for half
a minute and fill gigabytes, and a long chain of references overflows its stack, which ends the process.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

from bilora.errors import NotReady

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_EXTRA = 'Answers in JSON need the library llguidance. Run `pip install "bilora[json]"`, or ask for text.'
_TRIAL = "from bilora.inference.grammar_trial import try_grammar; try_grammar()"
"""The program of the trial process."""
_TOO_COMPLEX = "too complex to be compiled"
_CPU_SECONDS, _SECONDS = 1, 20
"""How long a trial may compute, and how long it may take where others compute too."""
_MEMORY_BYTES, _STACK_BYTES = 2**30, 2**20
_LEXER_FUEL, _MAX_LEXER_STATES = 100_000, 20_000
"""A tenth of the library's own limits: a few ms at the first token, and a few dozen MB per answer."""


def grammar_library() -> ModuleType:
    """Return llguidance.

    Raises:
        NotReady: the extra is not installed.
    """
    try:
        import llguidance
    except ImportError:
        raise NotReady(_EXTRA) from None
    module: ModuleType = llguidance
    return module


def new_matcher(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """Compile a grammar and prepare its first token; a matcher that cannot be made has an error."""
    library = grammar_library()
    limits = library.LLParserLimits(
        initial_lexer_fuel=_LEXER_FUEL, max_lexer_states=_MAX_LEXER_STATES, verbose_errors=False
    )
    matcher: LLMatcher = library.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    matcher.compute_bitmask()  # some errors show only here
    return matcher


def trial_problem(grammar: str) -> str:
    """Return why a grammar cannot be compiled here; empty if it can."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}  # none of this process's keys
    command = [sys.executable, "-c", _TRIAL]
    try:
        trial = subprocess.run(
            command, input=grammar, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return _TOO_COMPLEX
    return trial.stdout if trial.returncode == 0 else _TOO_COMPLEX


def try_grammar() -> None:
    """Compile the grammar on standard input for a tokenizer of single bytes, and print the error if there is one."""
    for kind, limit in ((resource.RLIMIT_CPU, _CPU_SECONDS), (resource.RLIMIT_AS, _MEMORY_BYTES)):
        resource.setrlimit(kind, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(_STACK_BYTES)  # smaller than in any thread that compiles the same grammar later
    thread = threading.Thread(target=_try, args=(sys.stdin.read(),))
    thread.start()
    thread.join()


def _try(grammar: str) -> None:
    matcher = new_matcher(grammar_library().LLTokenizer("byte"), grammar)
    error = matcher.get_error()
    sys.stdout.write("no answer fits it" if error.startswith("NoExtension") else error)
