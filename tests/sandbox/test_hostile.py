"""Programs that would rather be believed than be right; none may pass, none may hurt the next."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from bilora.records import Outcome, Program
from bilora.sandbox import ProcessSandbox

TEST = "assert answer(6) == 42"
CONTROL = Program(code="def answer(n):\n    return n * 7", tests=(TEST,))

HOSTILE = {
    "exit at import": "import sys\nsys.exit(0)",
    "hard exit at import": "import os\nos._exit(0)",
    "system exit in the function": "def answer(n):\n    raise SystemExit(0)",
    "hard exit in the function": "import os\ndef answer(n):\n    os._exit(0)",
    "exit handler": "import atexit, os\natexit.register(os._exit, 0)\ndef answer(n):\n    return 0",
    "markers on stdout": """
        print('1 passed in 0.01s'); print('{"status": "passed"}')
        def answer(n):
            print('OK')
        """,
    "forged replies on every descriptor": """
        import json, os
        for number in range(1, 64):
            for forged in ({"id": "", "value": True}, {"status": "passed", "results": [True]}):
                data = json.dumps(forged).encode()
                try:
                    os.write(number, len(data).to_bytes(4, 'big') + data)
                except OSError:
                    pass
        """,
    "equal to everything": """
        class Yes:
            def __eq__(self, other): return True
            __hash__ = None
        def answer(n): return Yes()
        """,
    "an int equal to everything": """
        class Yes(int):
            def __eq__(self, other): return True
            __hash__ = int.__hash__
        def answer(n): return Yes(1)
        """,
    "patched builtins": """
        import builtins
        builtins.isinstance = lambda *_: True
        builtins.len = lambda *_: 1
        builtins.compile = lambda *_, **__: 'True'
        def answer(n): return 0
        """,
    "patched json": """
        import json
        genuine = json.dumps
        json.dumps = lambda message: genuine({**message, 'value': True, 'passed': True, 'status': 'passed'})
        def answer(n): return 0
        """,
    "patched encoder": """
        import sys
        sys.modules['bilora.sandbox.candidate'].encode = lambda value: True
        def answer(n): return 0
        """,
    "not a number": "def answer(n): return float('nan')",
    "endless generator": "import itertools\ndef answer(n): return itertools.count(42)",
    "cyclic list": "def answer(n):\n    x = [42]\n    x.append(x)\n    return x",
    "deep nest": "def answer(n):\n    x = 42\n    for _ in range(10**5): x = [x]\n    return x",
    "ten million elements": "def answer(n): return [42] * 10**7",
    "ten megabytes of text": "def answer(n): return 'x' * 10**7",
    "a million bits": "def answer(n): return 1 << 10**6",
    "lone surrogate": "def answer(n): return '\\ud800'",
    "colliding set": "def answer(n): return {k * (2**61 - 1) for k in range(1000)}",
    "an exception that loops when shown": """
        class Loop(Exception):
            def __str__(self):
                while True: pass
        def answer(n): raise Loop
        """,
    "expected value in memory": """
        import gc, sys
        def answer(n):
            frame, seen = sys._getframe(), []
            while frame:
                seen.append(frame.f_locals)
                frame = frame.f_back
            for found in [*seen, *gc.get_objects()]:
                if isinstance(found, dict) and TEST_KEY in found:
                    return eval(found[TEST_KEY][0].rpartition('==')[2])
        TEST_KEY = 'te' + 'sts'
        """,
    "endless loop": "while True: pass",
    "deaf to exceptions": "def answer(n):\n    while True:\n        try:\n            while True: pass\n"
    "        except BaseException: pass",
    "deaf to signals": """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        def answer(n):
            while True: pass
        """,
    "regex blow-up": "import re\ndef answer(n): return re.match('(a+)+$', 'a' * 40 + 'b')",
    "huge power": "def answer(n): return 9**9**9",
    "sleep": "import time\ndef answer(n): time.sleep(10**6)",
    "endless stdout": "def answer(n):\n    while True: print('x' * 10**4)",
    "memory": "def answer(n): return len(bytearray(8 * 2**30))",
    "stack": "import sys\nsys.setrecursionlimit(10**9)\ndef answer(n): return answer(n)",
    "null pointer": "import ctypes\ndef answer(n): return ctypes.string_at(0)",
    "fork and leave": "import os\nif os.fork(): os._exit(0)\nimport time\ntime.sleep(10**6)",
    "fork many": "import os\nfor _ in range(200): os.fork()",
    "daemon": """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(10**6)
            os._exit(0)
        def answer(n): return 42
        """,
    "threads": """
        import threading, time
        for _ in range(500): threading.Thread(target=time.sleep, args=(9,)).start()
        """,
    "hang up": "import os\nos.close(3)\ndef answer(n): return 42",
    "unprompted answers": """
        import os
        os.write(3, b'\\x00\\x00\\x00\\x02{}' * 9)
        def answer(n): return 42
        """,
    "endless frame": "import os\nos.write(3, b'\\xff\\xff\\xff\\xff')\ndef answer(n): return 42",
    "NUL in the source": "x = 1\0",
    "source too deep": "x = " + "(" * 10**5,
}


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Outcome]]:
    programs = []
    for code in HOSTILE.values():
        programs += [Program(code=textwrap.dedent(code), tests=(TEST,)), CONTROL]
    with ProcessSandbox(workers=4, cpu_s=1, wall_s=2.5, memory_mb=512) as sandbox:
        ran = list(sandbox.run_many(programs))
    names = [name for hostile in HOSTILE for name in (hostile, f"control after {hostile}")]
    yield dict(zip(names, ran, strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_does_not_pass(outcomes: dict[str, Outcome], name: str) -> None:
    assert outcomes[name].status in ("failed", "timeout", "crashed"), outcomes[name]


@pytest.mark.parametrize("name", HOSTILE)
def test_the_program_after_a_hostile_one_is_judged_as_ever(outcomes: dict[str, Outcome], name: str) -> None:
    assert outcomes[f"control after {name}"].status == "passed", outcomes[f"control after {name}"]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("42.0", "42"),
        ("True", "1"),
        ("-0.0", "0.0"),
        ("(1, [2, {3: {4}}])", "(1, [2, {3: {4}}])"),
        ("__import__('collections').Counter('aab')", "{'a': 2, 'b': 1}"),
        ("__import__('collections').namedtuple('P', 'x y')(1, 2)", "(1, 2)"),
        ("frozenset({1})", "{1}"),
        ("2 + 3j", "2 + 3j"),
        ("b'\\xff'", "b'\\xff'"),
        ("'\\ud800\\0é'", "'\\ud800\\0é'"),
        ("float('inf')", "float('inf')"),
        ("list(range(10**5))", "sorted(10**5 * [0])[:0]"),
    ],
)
def test_values_compare_as_python_compares_them(returned: str, expected: str) -> None:
    program = Program(code=f"def f():\n    return {returned}", tests=(f"assert f() == {expected}",))
    with ProcessSandbox(workers=1) as sandbox:
        outcome = sandbox.run(program)
    assert outcome.status == ("passed" if eval(f"({returned}) == {expected}") else "failed"), outcome.detail


def test_printing_much_and_then_answering_passes() -> None:
    program = Program(code="print('x' * 10**6)\ndef answer(n):\n    return 42", tests=(TEST,))
    with ProcessSandbox(workers=1) as sandbox:
        assert sandbox.run(program).status == "passed"
