"""The process that candidates are forked from.

It has the standard library loaded and has never seen a test, so neither has what it forks.
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
from typing import Any, Literal, NoReturn

from bilora.sandbox import namespaces
from bilora.sandbox.confinement import Layers, Limits, become_nobody, guard, kill_children, probe
from bilora.sandbox.wire import Channel, Closed

Kind = Literal["candidate", "library", "tester"]
"""What a zygote is for: programs, programs that import rarer modules, or tests."""

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
"""What programs can import even where the library's files cannot be read by an unprivileged user.

Every module of the standard library that is of use to code which only computes; what its functions ask of the
system is refused as ever: `threading` can be imported, and starts no thread. A process forks more slowly the
more it has loaded, so only the common modules are loaded for programs that name none of the others.
"""
_MODULES = "|".join(
    sorted({re.escape(part) for name in _FURTHER.split() for part in name.split(".")} - {*_COMMON.split(), "os"})
)
_RARER = re.compile(
    rf"(?:\bimport\b|\bfrom\b|__import__\(|import_module\().*?\b(?:{_MODULES})\b"
    r"|\basync\b|\bcodecs\b|\.(?:en|de)code\(\s*['\"](?!utf-?8|ascii|latin)"
)


_HINTS = ("import", "async", "code")
"""Without one of these there is nothing for that pattern to find; they are looked for faster."""


def kind_for(*sources: str) -> Kind:
    """Return the zygote for a program: one with the whole library if a text names, or seems to name, a rarer module."""
    named = (source for source in sources if any(hint in source for hint in _HINTS))
    return "library" if any(_RARER.search(source) for source in named) else "candidate"


def serve(referee: Channel, limits: Limits, kind: Kind) -> None:
    """Shut itself in, say how well, then fork a process onto each socket that the referee hands over."""
    live = _load(kind)
    time.localtime()  # reads the time zone while files can be read
    layers = _enclosed(limits)
    guard()
    referee.send({"on": layers.on, "off": layers.off})
    gc.collect()
    gc.freeze()
    with contextlib.suppress(Closed):
        while True:
            _raise(referee, live, limits, layers)
    kill_children()


def _load(kind: Kind) -> Callable[[int, Limits, Layers], NoReturn]:
    """Import what programs may use, and keep it from hooking into fork.

    A hook would run again in every fork: threading's takes as long as the fork itself, and random's would let the
    same program come out differently from run to run.

    Returns:
        What a freshly forked process does with the descriptor that it is given.
    """
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    try:
        for name in (_COMMON + ("" if kind == "candidate" else _FURTHER)).split():
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        role = importlib.import_module(f"bilora.sandbox.{'tester' if kind == 'tester' else 'candidate'}")
    finally:
        os.register_at_fork = register
    if kind != "candidate":
        importlib.import_module("bilora.sandbox.coroutines").install()
    importlib.import_module("random").seed(0)
    live: Callable[[int, Limits, Layers], NoReturn] = role.live
    return live


def _enclosed(limits: Limits) -> Layers:
    """Enter namespaces where they are allowed, and try the layers that each candidate will add."""
    why = ""
    try:
        become_nobody()
        namespaces.enter()
        if not namespaces.denied():
            why = "they were entered and hid nothing"
    except OSError as error:
        why = str(error)
    inner = probe(limits)
    if why:
        return Layers(inner.on, {"namespaces": why, **inner.off})
    return Layers(("namespaces", *inner.on), inner.off)


def _raise(referee: Channel, live: Callable[[int, Limits, Layers], NoReturn], limits: Limits, layers: Layers) -> None:
    descriptor = referee.take_over()
    pid = os.fork()
    if pid == 0:
        try:
            live(descriptor, limits, layers)
        finally:
            os._exit(1)
    os.close(descriptor)
    try:
        referee.receive()
    finally:
        ending = _bury(pid)
    referee.send(ending)


def _bury(pid: int) -> dict[str, Any]:
    """Kill a fork and all that it started; say how it ended, and whether it had ended by itself."""
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
