"""What the confinement does to processes, watched from outside."""

from __future__ import annotations

import subprocess
import sys

import pytest

KILLED = """
import os, time
from bilora.sandbox.confinement import guard, kill_children
guard()
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.write(write, b"ready")
        time.sleep(600)
    os._exit(0)
os.read(read, 5)
print(kill_children())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is Linux's")
def test_a_daemon_that_left_its_session_is_still_killed() -> None:
    ran = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "1"


LAYERS = """
import os, resource
from bilora.sandbox.confinement import Limits, confine
print(confine(Limits(cpu_s=1.5, wall_s=2, memory_mb=300)))
print(os.getuid() != 0, resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_AS)[1])
try:
    os.fork()
except OSError as error:
    print(type(error).__name__)
"""


def test_each_layer_that_is_named_is_in_force() -> None:
    ran = subprocess.run([sys.executable, "-c", LAYERS], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines() == [
        "['rlimits', 'unprivileged']",
        f"True (2, 3) {300 * 2**20}",
        "BlockingIOError",
    ]
