"""What a person types or pipes in: arguments and standard input, as text."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence

from bilora.errors import BadData
from bilora.textfiles import NotText, decode_text, encoding_of

STDIN = "standard input"


def refuse_bytes(arguments: Sequence[str]) -> None:
    """Refuse arguments that are no text in this machine's encoding.

    Raises:
        BadData: one is not; its number, its bytes and the position are named.
    """
    encoding = sys.getfilesystemencoding()
    advice = "write it in UTF-8" if encoding == "utf-8" else "set PYTHONUTF8=1 to have arguments read as UTF-8"
    for number, argument in enumerate(arguments, start=1):
        if place := _byte_in(argument):
            shown = ascii(argument.encode(errors="surrogateescape"))[2:-1]
            raise BadData(f"argument {number} ({shown})", f"is not {encoding.upper()} ({place}); {advice}.")


def read_stdin() -> str:
    """Return the whole of standard input; a byte order mark is no part of it.

    Raises:
        BadData: it is no text.
    """
    if sys.stdin is None:
        return ""
    if not isinstance(sys.stdin, io.TextIOWrapper):
        return checked(sys.stdin.read())
    try:
        text = decode_text(sys.stdin.buffer.read())
    except NotText as error:
        raise BadData(STDIN, f"{error}; write it in UTF-8.", error.line) from None
    return checked(text.replace("\r\n", "\n").replace("\r", "\n"))


def stdin_lines(prompt: Callable[[], str]) -> Iterator[str]:
    """Yield the lines of standard input, showing `prompt()` to a person at a terminal.

    Bytes that are no text come as surrogates, which `checked` refuses: one bad line is not the end of the rest.
    """
    if sys.stdin is None:
        return
    watched = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        if watched:
            sys.stdin.reconfigure(errors="surrogateescape")
        else:
            sys.stdin.reconfigure(encoding=_piped_encoding(sys.stdin.buffer), errors="surrogateescape")
    while True:
        try:
            yield input(prompt() if watched else "")
        except EOFError:
            return
        except UnicodeDecodeError as error:  # half a character of UTF-16 at the very end
            raise BadData(STDIN, f"is not {error.encoding.upper()} ({error.reason}).") from None


def checked(text: str, place: str = STDIN) -> str:
    """Return `text` if all of it is text.

    Raises:
        BadData: it holds a byte that is not, or NUL.
    """
    if bad := _byte_in(text):
        raise BadData(place, f"is not UTF-8 ({bad}); write it in UTF-8.")
    if "\0" in text:
        raise BadData(place, f"is no text (a NUL at position {text.index(chr(0))}).")
    return text


def _piped_encoding(buffer: io.BufferedReader | io.BytesIO) -> str:
    head = buffer.peek(4)[:4] if isinstance(buffer, io.BufferedReader) else b""
    encoding, mark = encoding_of(head)
    return encoding if not mark else "utf-8-sig" if encoding == "utf-8" else encoding.rpartition("-")[0]


def _byte_in(text: str) -> str:
    """Name the first byte in `text` that Python could not decode, and where it is; empty if there is none."""
    for index, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            position = len(text[:index].encode())
            return f"byte 0x{ord(character) & 0xFF:02x} at position {position}"
    return ""
