"""Arguments and standard input as valid text."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence

from bilora.errors import BadData
from bilora.textfiles import NotText, decode_text, encoding_of

STDIN = "standard input"


def refuse_bytes(arguments: Sequence[str]) -> None:
    """Refuse arguments that are not text in this machine's encoding.

    Raises:
        BadData: an argument is not; the message has its number, bytes and position.
    """
    encoding = sys.getfilesystemencoding()
    advice = "write it in UTF-8" if encoding == "utf-8" else "set PYTHONUTF8=1 to read arguments as UTF-8"
    for number, argument in enumerate(arguments, start=1):
        if problem := _undecoded_byte(argument):
            text = ascii(argument.encode(errors="surrogateescape"))[2:-1]
            raise BadData(f"argument {number} ({text})", f"is not {encoding.upper()} ({problem}); {advice}.")


def read_stdin() -> str:
    """Return all text of standard input, without a byte order mark.

    Raises:
        BadData: it is not text.
    """
    if sys.stdin is None:
        return ""
    if not isinstance(sys.stdin, io.TextIOWrapper):
        return check_text(sys.stdin.read())
    try:
        text = decode_text(sys.stdin.buffer.read())
    except NotText as error:
        raise BadData(STDIN, f"{error}; write it in UTF-8.", error.line) from None
    return check_text(text.replace("\r\n", "\n").replace("\r", "\n"))


def stdin_lines(prompt: Callable[[], str]) -> Iterator[str]:
    """Yield the lines of standard input; print `prompt()` if it is a terminal.

    Invalid bytes become surrogates, which `check_text` refuses, so that one invalid line does not end the input.
    """
    if sys.stdin is None:
        return
    is_terminal = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        if is_terminal:
            sys.stdin.reconfigure(errors="surrogateescape")
        else:
            sys.stdin.reconfigure(encoding=_piped_encoding(sys.stdin.buffer), errors="surrogateescape")
    while True:
        try:
            yield input(prompt() if is_terminal else "")
        except EOFError:
            return
        except UnicodeDecodeError as error:  # half a UTF-16 character at the end
            raise BadData(STDIN, f"is not {error.encoding.upper()} ({error.reason}).") from None


def check_text(text: str, source: str = STDIN) -> str:
    """Return `text` unchanged if it is valid.

    Args:
        source: where the text comes from, for the message.

    Raises:
        BadData: it contains an undecoded byte or NUL.
    """
    if problem := _undecoded_byte(text):
        raise BadData(source, f"is not UTF-8 ({problem}); write it in UTF-8.")
    if "\0" in text:
        raise BadData(source, f"is not text (a NUL at position {text.index(chr(0))}).")
    return text


def _piped_encoding(buffer: io.BufferedReader | io.BytesIO) -> str:
    head = buffer.peek(4)[:4] if isinstance(buffer, io.BufferedReader) else b""
    encoding, mark = encoding_of(head)
    return encoding if not mark else "utf-8-sig" if encoding == "utf-8" else encoding.rpartition("-")[0]


def _undecoded_byte(text: str) -> str:
    """Return the first byte that Python could not decode, with its position; empty if there is none."""
    for index, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            position = len(text[:index].encode())
            return f"byte 0x{ord(character) & 0xFF:02x} at position {position}"
    return ""
