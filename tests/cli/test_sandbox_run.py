"""The command `bilora sandbox run`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from bilora.cli import app, run_command

AREA = "def area(r):\n    return 3 * r * r\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("f.py").write_text(AREA, encoding="utf-8")
    return tmp_path


def run(*arguments: str, tests: str | bytes | None = None) -> int:
    if tests is not None:
        Path("t.py").write_bytes(tests if isinstance(tests, bytes) else tests.encode())
        arguments = (*arguments, "--tests", "t.py")
    return run_command(app, ["sandbox", "run", *arguments])


@pytest.mark.parametrize(
    ("tests", "code", "message"),
    [
        ("assert area(1) == 3\nassert area(2) > 11", 0, "passed: 2 of 2 tests"),
        ("import math\nassert math.floor(area(1.1)) == 3", 0, "passed"),
        ("assert area(1) == 4", 10, "gave 3, not 4"),
        ("def check(candidate):\n    assert candidate(1) == 4", 10, "assert candidate(1) == 4 gave 3, not 4"),
        ("def test_area():\n    assert area(1) == 4", 10, "assert area(1) == 4 gave 3, not 4"),
        ("if __name__ == '__main__':\n    assert area(1) == 4", 10, "gave 3, not 4"),
        ("import numpy\nassert area(1) == 3", 10, "the sandbox has no module numpy"),
    ],
)
def test_the_exit_code_is_the_verdict(
    folder: Path, capsys: pytest.CaptureFixture[str], tests: str, code: int, message: str
) -> None:
    assert run("f.py", tests=tests) == code
    assert message in capsys.readouterr().out


def test_tests_decided_only_in_the_program_s_process_are_inconclusive(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("f.py").write_text("class Area:\n    pass\ndef area(r):\n    return Area()\n", encoding="utf-8")
    assert run("f.py", tests="assert isinstance(area(1), Area)") == 11
    assert "passed-in-process" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("# later", "t.py: the file asserts nothing"),
        ("", "t.py: the file asserts nothing"),
        ("assert (area(1) == 9, 'no')", "t.py:1: `assert (area(1) == 9, 'no')` asserts nothing"),
        ("x = 1\n\narea(1) == 9", "t.py:3: `area(1) == 9` asserts nothing"),
        ("def helper():\n    assert area(1) == 9", "asserts nothing"),
        ("assert 1 == 2 - 1", "no assert calls a name that f.py defines"),
        ("assert area(1) == ", "t.py:1: is not Python"),
        (b"assert area(1) == '\xff'", "t.py: is not Python source in UTF-8"),
    ],
)
def test_tests_that_assert_nothing_are_refused_with_their_line(
    folder: Path, capsys: pytest.CaptureFixture[str], tests: str | bytes, message: str
) -> None:
    assert run("f.py", tests=tests) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "written",
    [
        b"\xef\xbb\xbf" + AREA.encode(),
        AREA.replace("\n", "\r\n").encode(),
        AREA.replace("\n", "\r").encode(),
        b"# -*- coding: latin-1 -*-\n# gr\xf6\xdfe\n" + AREA.encode(),
    ],
    ids=["BOM", "CRLF", "CR", "latin-1"],
)
def test_files_are_read_as_python_reads_them(folder: Path, written: bytes) -> None:
    Path("f.py").write_bytes(written)
    assert run("f.py", tests=b"\xef\xbb\xbfassert area(1) == 3") == 0


def test_the_program_can_come_from_standard_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(AREA.encode())))
    assert run("-", tests="assert area(2) == 12") == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x = '\xff'")))
    assert run("-") == 2
    assert "standard input: is not Python source" in capsys.readouterr().err


def test_a_program_without_tests_runs_and_is_not_called_passed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("f.py") == 0
    assert "there was no test" in capsys.readouterr().out
    Path("f.py").write_text("area", encoding="utf-8")
    assert run("f.py") == 10


def test_json_reports_how_many_asserts_were_decided_outside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("f.py", "--json", tests="for r in (1, 2):\n    assert area(r) == 3 * r * r") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["status"], outcome["asserts"], outcome["outside"]) == ("passed", 2, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing.py",),
        (".",),
        ("f.py", "--memory-mb", "99999999999999"),
        ("f.py", "--cpu-s", "1e10"),
        ("f.py", "--cpu-s", "inf"),
        ("f.py", "--cpu-s", "nan"),
        ("f.py", "--tests", "."),
        ("f.py", "--setup", "nothing.py"),
    ],
)
def test_unusable_input_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
