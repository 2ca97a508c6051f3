"""The process that candidates are forked from.

It has the standard library loaded and has never seen a test, so its forks have not seen one either.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import re
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NoReturn

from bilora.sandbox import namespaces
from bilora.sandbox.confinement import Layers, Limits, become_nobody, guard, kill_children, probe
from bilora.sandbox.wire import Channel, ChannelClosed

if TYPE_CHECKING:
    from bilora.sandbox.messages import Ending, LayerReport

ForkKind = Literal["candidate", "library", "tester"]
"""What a zygote forks processes for: programs, programs that import rarer modules, or tests."""

_COMMON = """
    array ast base64 bisect calendar cmath collections copy dataclasses datetime decimal enum fractions
    functools hashlib heapq itertools json math numbers operator queue random re statistics string struct
    textwrap time typing unicodedata _strptime
"""
_FURTHER = """
    abc argparse asyncio atexit binascii bz2 cmd code codecs collections.abc colorsys configparser contextlib
    contextvars copyreg csv ctypes difflib dis email.utils errno fnmatch gc getopt gettext glob graphlib gzip hmac
    html html.entities html.parser importlib inspect io ipaddress keyword linecache locale logging logging.handlers
    lzma marshal mimetypes opcode optparse os.path pathlib pickle pickletools platform posixpath pprint quopri
    reprlib resource sched secrets select selectors shlex shutil signal socket sqlite3 stat stringprep subprocess
    symtable tempfile threading timeit token tokenize tomllib traceback types unittest unittest.async_case unittest.mock
    urllib.error urllib.parse uuid warnings weakref xml.dom.minidom xml.etree.ElementTree zipfile zlib zoneinfo
    encodings.ascii encodings.base64_codec encodings.cp1252 encodings.hex_codec encodings.idna encodings.latin_1
    encodings.punycode encodings.raw_unicode_escape encodings.rot_13 encodings.unicode_escape encodings.utf_16
    encodings.utf_16_be encodings.utf_16_le encodings.utf_32 encodings.utf_8_sig encodings.zlib_codec
"""
"""Modules that programs can import even where an unprivileged user cannot read the library's files.

These are the standard library's modules that are useful to code which only computes. System calls of theirs are
refused as usual: `threading` can be imported, but starts no thread. A process forks more slowly the more it has
loaded, so only the common modules are loaded for programs that name none of the others.
"""
_MODULES = "|".join(
    sorted({re.escape(part) for name in _FURTHER.split() for part in name.split(".")} - {*_COMMON.split(), "os"})
)
_RARER = re.compile(
    rf"(?:\bimport\b|\bfrom\b|__import__\(|import_module\().*?\b(?:{_MODULES})\b"
    r"|\basync\b|\bcodecs\b|\.(?:en|de)code\(\s*['\"](?!utf-?8|ascii|latin)"
)

_HINTS = ("import", "async", "code")
"""Without one of these in it a source cannot match that pattern; they are found faster."""


def kind_for(*sources: str) -> ForkKind:
    """Return the zygote for a program: one with the whole library if a text names, or seems to name, a rarer module."""
    named = (source for source in sources if any(hint in source for hint in _HINTS))
    return "library" if any(_RARER.search(source) for source in named) else "candidate"


def run_zygote(referee: Channel, limits: Limits, kind: ForkKind) -> None:
    """Confine this process, send how, then fork a process for each socket that the referee hands over."""
    run = _load(kind)
    time.localtime()  # reads the time zone while files can be read
    layers = _confine_zygote(limits)
    guard()
    report: LayerReport = {"on": [*layers.on], "off": {**layers.off}}
    referee.send(report)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(ChannelClosed):
        while True:
            _fork_candidate(referee, run, limits, layers)
    kill_children()


def _load(kind: ForkKind) -> Callable[[int, Limits, Layers], NoReturn]:
    """Import the modules that programs may use, and keep them from registering hooks for fork.

    A hook would run again in every fork: threading's takes as long as the fork itself, and random's would make the
    same program end differently from run to run.

    Returns:
        The function that a newly forked process runs, given the descriptor of its socket.
    """
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    try:
        for name in (_COMMON + ("" if kind == "candidate" else _FURTHER)).split():
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        if kind == "tester":
            from bilora.sandbox.tester import run_tester as run
        else:
            from bilora.sandbox.candidate import run_candidate as run
    finally:
        os.register_at_fork = register
    if kind != "candidate":
        from bilora.sandbox.coroutines import set_computing_event_loop

        set_computing_event_loop()
    importlib.import_module("random").seed(0)
    return run


def _confine_zygote(limits: Limits) -> Layers:
    """Enter namespaces where they are allowed, and test the layers that each candidate will add."""
    why = ""
    try:
        become_nobody()
        namespaces.enter()
        if not namespaces.machine_is_hidden():
            why = "they were entered and hid nothing"
    except OSError as error:
        why = str(error)
    inner = probe(limits)
    if why:
        return Layers(inner.on, {"namespaces": why, **inner.off})
    return Layers(("namespaces", *inner.on), inner.off)


def _fork_candidate(
    referee: Channel, run: Callable[[int, Limits, Layers], NoReturn], limits: Limits, layers: Layers
) -> None:
    """Fork one process, wait until the referee wants it ended, and report how it ended."""
    descriptor = referee.take_over()
    pid = os.fork()
    if pid == 0:
        try:
            run(descriptor, limits, layers)
        finally:
            os._exit(1)
    os.close(descriptor)
    try:
        referee.receive()
    finally:
        ending = _kill_fork(pid)
    referee.send(ending)


def _kill_fork(pid: int) -> Ending:
    """Kill a fork and every process that it started; return how it ended."""
    gone = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "gone": gone,
        "status": status,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "left_behind": kill_children(),
    }
