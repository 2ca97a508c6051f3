"""Confinement of processes, observed from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bilora.sandbox.seccomp import ALLOWED

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="these layers are Linux's")

KILLED = """
import os, time
from bilora.sandbox.confinement import protect_process, kill_children
protect_process()
read, write = os.pipe()
between = os.fork()
if between == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.write(write, b"ready")
        time.sleep(600)
    os._exit(0)
os.read(read, 5)
os.waitpid(between, 0)
print(kill_children())
"""


@needs_linux
def test_a_daemon_that_left_its_session_is_still_killed() -> None:
    assert output_of(KILLED) == ["1"]


def output_of(script: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout.splitlines()


LIMITED = """
import os, resource
from bilora.sandbox.confinement import Layers, Limits, confine
confine(Limits(cpu_s=1.5, wall_s=2, memory_mb=300), Layers((), {"landlock": "off", "seccomp": "off"}))
print(os.getuid() != 0, resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_AS)[1])
try:
    os.fork()
except OSError as error:
    print(type(error).__name__)
"""


def test_the_limits_are_in_force() -> None:
    assert output_of(LIMITED) == [f"True (2, 3) {300 * 2**20}", "BlockingIOError"]


PROBED = """
from bilora.sandbox import confinement, landlock, seccomp
from bilora.sandbox.confinement import Limits, probe
limits = Limits(1, 2, 300)
{change}
layers = probe(limits)
print(layers.level, *(name.partition("-")[0] for name in layers.on))
print(layers.off)
"""


def probed(change: str) -> list[str]:
    return output_of(PROBED.format(change=change))


@needs_linux
def test_every_layer_of_linux_is_seen_to_deny() -> None:
    assert probed("") == ["strict unprivileged rlimits landlock seccomp", "{}"]


@needs_linux
def test_a_layer_that_denies_nothing_is_off_and_the_level_weak() -> None:
    level, off = probed("seccomp.assemble_filter = lambda machine: b'\\x06\\0\\0\\0\\0\\0\\xff\\x7f'  # allow all")
    assert level == "weak unprivileged rlimits landlock"
    assert off == "{'seccomp': 'it was installed and denied nothing'}"


@needs_linux
def test_a_layer_that_cannot_be_installed_says_why() -> None:
    level, off = probed("import platform; platform.machine = lambda: 'pdp11'")
    assert level == "weak unprivileged rlimits landlock"
    assert off == "{'seccomp': '[Errno 95] no table of system calls for pdp11'}"


NAMESPACED = """
import os, socket
from bilora.sandbox import namespaces
from bilora.sandbox.confinement import drop_privileges
drop_privileges()
try:
    namespaces.enter()
except OSError as error:
    print("not allowed here:", error)
else:
    print(namespaces.host_is_hidden(), os.getpid(), os.listdir("/"), flush=True)
"""


@needs_linux
def test_namespaces_hide_the_machine() -> None:
    (output,) = output_of(NAMESPACED)
    if output.startswith("not allowed"):
        pytest.skip(output)
    assert output == "True 1 []"


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_of_system_calls_are_the_kernel_s(machine: str) -> None:
    if not HEADERS[machine].is_file():
        pytest.skip("the kernel's headers are not installed")
    lines = [line.split() for line in HEADERS[machine].read_text(encoding="ascii", errors="replace").splitlines()]
    known = {parts[1]: parts[2] for parts in lines if len(parts) == 3 and parts[0] == "#define"}
    for name, number in ALLOWED[machine].items():
        assert known.get(f"__NR3264_{name}", known.get(f"__NR_{name}")) == str(number), name


def test_no_call_that_opens_starts_or_signals_is_allowed() -> None:
    forbidden = ("open", "exec", "fork", "clone", "socket", "connect", "kill", "ptrace", "mount", "unshare", "prctl")
    for machine, allowed in ALLOWED.items():
        assert not [name for name in allowed if any(part in name for part in forbidden)], machine
