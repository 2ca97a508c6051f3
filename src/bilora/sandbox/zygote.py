"""The process from which candidates and testers are forked.

It has loaded the standard library and has never received a test, so a new fork contains no test.
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
from bilora.sandbox.confinement import Layers, Limits, drop_privileges, kill_children, probe, protect_process
from bilora.sandbox.wire import Channel, ChannelClosed

if TYPE_CHECKING:
    from bilora.sandbox.messages import ExitReport, LayerReport

ForkKind = Literal["candidate", "library", "tester"]
"""What a zygote's forks run: programs, programs that import rare modules, or tests."""

_COMMON = """
    array ast base64 bisect calendar cmath collections copy dataclasses datetime decimal enum fractions
    functools hashlib heapq itertools json math numbers operator queue random re statistics string struct
    textwrap time typing unicodedata _strptime
"""
_RARE = """
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
"""Standard library modules that programs can import, although they cannot read the library's files.

They are those of use to code that only computes. Their system calls are refused as usual: a program can import
`threading`, but cannot start a thread. The rare modules are loaded only for programs that name one of them,
because a process with more modules forks more slowly.
"""
_MODULES = "|".join(
    sorted({re.escape(part) for name in _RARE.split() for part in name.split(".")} - {*_COMMON.split(), "os"})
)
_RARE_IMPORT = re.compile(
    rf"(?:\bimport\b|\bfrom\b|__import__\(|import_module\().*?\b(?:{_MODULES})\b"
    r"|\basync\b|\bcodecs\b|\.(?:en|de)code\(\s*['\"](?!utf-?8|ascii|latin)"
)

_HINTS = ("import", "async", "code")
"""A source without any of these cannot match `_RARE_IMPORT`; searching for them is faster."""


def kind_for(*sources: str) -> ForkKind:
    """Return the zygote for a program: one with the whole library if a text names, or seems to name, a rarer module."""
    named = (source for source in sources if any(hint in source for hint in _HINTS))
    return "library" if any(_RARE_IMPORT.search(source) for source in named) else "candidate"


def run_zygote(referee: Channel, limits: Limits, kind: ForkKind) -> None:
    """Confine this process, send its layers, then fork a process for each socket that the referee sends."""
    run = _load(kind)
    time.localtime()  # loads the time zone while files can still be read
    layers = _confine_zygote(limits)
    protect_process()
    report: LayerReport = {"on": [*layers.on], "off": {**layers.off}}
    referee.send(report)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(ChannelClosed):
        while True:
            _fork_once(referee, run, limits, layers)
    kill_children()


def _load(kind: ForkKind) -> Callable[[int, Limits, Layers], NoReturn]:
    """Import the modules that programs may use, and return the function that a newly forked process runs.

    The modules must not register fork hooks, which would run in every fork: threading's takes as long as the fork
    itself, and random's would change the seed.
    """
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    try:
        for name in (_COMMON + ("" if kind == "candidate" else _RARE)).split():
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        if kind == "tester":
            from bilora.sandbox.tester import run_tester as run
        else:
            from bilora.sandbox.candidate import run_candidate as run
    finally:
        os.register_at_fork = register
    if kind != "candidate":
        from bilora.sandbox.coroutines import set_compute_only_event_loop

        set_compute_only_event_loop()
    importlib.import_module("random").seed(0)
    return run


def _confine_zygote(limits: Limits) -> Layers:
    """Enter namespaces where they are allowed, and return them with the layers that each fork will add."""
    reason = ""
    try:
        drop_privileges()
        namespaces.enter()
        if not namespaces.host_is_hidden():
            reason = "they were entered but did not hide the host"
    except OSError as error:
        reason = str(error)
    inner = probe(limits)
    if reason:
        return Layers(inner.on, {"namespaces": reason, **inner.off})
    return Layers(("namespaces", *inner.on), inner.off)


def _fork_once(
    referee: Channel, run: Callable[[int, Limits, Layers], NoReturn], limits: Limits, layers: Layers
) -> None:
    """Fork one process, wait until the referee requests its end, then kill it and report how it exited."""
    descriptor = referee.receive_descriptor()
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
        report = _kill_fork(pid)
    referee.send(report)


def _kill_fork(pid: int) -> ExitReport:
    """Kill a fork and every process that it started; return how it exited."""
    by_itself = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "by_itself": by_itself,
        "status": status,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "left_behind": kill_children(),
    }
