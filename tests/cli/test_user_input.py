"""Arguments and standard input are text, or are refused with the byte and its position."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest
import typer

from bilora.cli import app, run_command
from bilora.cli.user_input import check_text, read_stdin, refuse_bytes, stdin_lines
from bilora.errors import BadData

Piped = Callable[[bytes], None]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Piped:
    """Put bytes on standard input."""

    def pipe(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)), encoding="utf-8"))

    return pipe


def commands(one: typer.Typer, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command of an app, with those of its groups."""
    names = [(*before, str(command.name)) for command in one.registered_commands]
    for group in one.registered_groups:
        assert group.typer_instance is not None
        names += commands(group.typer_instance, (*before, str(group.name)))
    return names


@pytest.mark.parametrize("command", commands(app), ids=" ".join)
def test_every_command_refuses_an_argument_that_is_not_text(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    odd = b"na\xefve".decode(errors="surrogateescape")
    assert run_command(app, [*command, odd]) == 2
    message = f"argument {len(command) + 1} (na\\xefve): is not UTF-8 (byte 0xef at position 2); write it in UTF-8."
    assert capsys.readouterr().err == f"bilora: {message}\n"


def test_arguments_in_any_language_are_text() -> None:
    refuse_bytes(["größe", "中文", "🙂", ""])


@pytest.mark.parametrize(
    "data",
    [
        "def f():\n    return 'ü'\n".encode(),
        "def f():\n    return 'ü'\n".encode("utf-8-sig"),
        "def f():\n    return 'ü'\n".encode("utf-16"),
        "def f():\r\n    return 'ü'\r\n".encode(),
    ],
    ids=["utf-8", "marked", "utf-16", "crlf"],
)
def test_standard_input_is_read_whole(piped: Piped, data: bytes) -> None:
    piped(data)
    assert read_stdin() == "def f():\n    return 'ü'\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"one\ntwo \xe9", r"standard input:2: is not UTF-8 \(byte 0xe9 at position 8\)"),
        ("sum".encode("utf-16-le"), r"standard input: is not text \(a NUL at position 1\)"),
        (b"\xff\xfea", r"standard input:1: is not UTF-16-LE"),
    ],
)
def test_standard_input_that_is_not_text_is_refused(piped: Piped, data: bytes, message: str) -> None:
    piped(data)
    with pytest.raises(BadData, match=message):
        read_stdin()


def test_a_closed_standard_input_is_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert read_stdin() == "" and list(stdin_lines(str)) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_are_read_one_by_one_without_a_byte_order_mark(piped: Piped, encoding: str) -> None:
    piped("größe\nzwei\r\ndrei".encode(encoding))
    assert list(stdin_lines(str)) == ["größe", "zwei", "drei"]


def test_an_invalid_line_does_not_end_the_input(piped: Piped) -> None:
    piped(b"one\nna\xefve\nthree\n")
    first, bad, last = stdin_lines(str)
    assert (first, last) == ("one", "three")
    with pytest.raises(BadData, match=r"this line: is not UTF-8 \(byte 0xef at position 2\)"):
        check_text(bad, "this line")


def test_half_a_character_at_the_end_is_refused(piped: Piped) -> None:
    piped("one\n".encode("utf-16") + b"x")
    with pytest.raises(BadData, match="is not UTF-16"):
        list(stdin_lines(str))
