"""Compile grammars with llguidance, first in a subprocess with limits.

llguidance limits the work per token, but not that of its compiler: a schema of a few hundred characters can take half
a minute and gigabytes, and a long chain of references overflows the stack, which ends the process.
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

_NOT_INSTALLED = 'Answers in JSON need the library llguidance. Run `pip install "bilora[json]"`, or request text.'
_SUBPROCESS = "from bilora.inference.grammar_compiler import compile_stdin; compile_stdin()"
"""The program of the subprocess."""
_TOO_COMPLEX = "too complex to be compiled"
_CPU_SECONDS, _TIMEOUT_SECONDS = 1, 20
"""The subprocess's limits of CPU time, and of wall-clock time on a busy machine."""
_MEMORY_BYTES, _STACK_BYTES = 2**30, 2**20
_LEXER_FUEL, _MAX_LEXER_STATES = 100_000, 20_000
"""A tenth of llguidance's defaults: a few ms at the first token, and a few dozen MB per answer."""


def grammar_library() -> ModuleType:
    """Return llguidance.

    Raises:
        NotReady: the extra is not installed.
    """
    try:
        import llguidance
    except ImportError:
        raise NotReady(_NOT_INSTALLED) from None
    module: ModuleType = llguidance
    return module


def new_matcher(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """Compile a grammar and prepare its first token; a failed compilation is the matcher's error."""
    library = grammar_library()
    limits = library.LLParserLimits(
        initial_lexer_fuel=_LEXER_FUEL, max_lexer_states=_MAX_LEXER_STATES, verbose_errors=False
    )
    matcher: LLMatcher = library.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    matcher.compute_bitmask()  # some errors are reported only here
    return matcher


def compile_error(grammar: str) -> str:
    """Compile a grammar in a subprocess; return the error, empty if there is none."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}  # without this process's API keys
    command = [sys.executable, "-c", _SUBPROCESS]
    try:
        compilation = subprocess.run(
            command,
            input=grammar,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return _TOO_COMPLEX
    return compilation.stdout if compilation.returncode == 0 else _TOO_COMPLEX


def compile_stdin() -> None:
    """Compile the grammar on standard input for a tokenizer of single bytes, and print the error, if any."""
    for kind, limit in ((resource.RLIMIT_CPU, _CPU_SECONDS), (resource.RLIMIT_AS, _MEMORY_BYTES)):
        resource.setrlimit(kind, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(_STACK_BYTES)  # smaller than in any thread that compiles the same grammar later
    thread = threading.Thread(target=_print_error, args=(sys.stdin.read(),))
    thread.start()
    thread.join()


def _print_error(grammar: str) -> None:
    matcher = new_matcher(grammar_library().LLTokenizer("byte"), grammar)
    error = matcher.get_error()
    sys.stdout.write("no answer can match it" if error.startswith("NoExtension") else error)
