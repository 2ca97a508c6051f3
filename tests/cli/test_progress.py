"""Progress bars on a terminal keep moving; elsewhere there is a line at intervals."""

from __future__ import annotations

import io
import re
import time
from contextlib import redirect_stderr

import pytest

from bilora.cli import progress
from bilora.cli.progress import bar


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything happen earlier."""
    monkeypatch.setattr(progress, "REFRESH_S", 0.05)
    monkeypatch.setattr(progress, "NESTED_DELAY_S", 0.2)


def test_the_clock_of_a_bar_runs_while_no_item_is_finished() -> None:
    with redirect_stderr(Terminal()) as terminal, bar("wait", 3):
        time.sleep(0.4)
        drawn = terminal.getvalue().count("wait:")
    assert drawn >= 4


def test_a_short_operation_inside_another_gets_no_bar_and_a_long_one_does() -> None:
    with redirect_stderr(Terminal()) as terminal, bar("outer", 3) as outer:
        with outer.nested("short", 1) as inner:
            inner(1)
        with outer.nested("long", 1) as inner:
            time.sleep(0.5)
            inner(1)
    assert "short" not in terminal.getvalue() and "long" in terminal.getvalue()


def test_the_time_of_a_nested_operation_does_not_count_for_the_outer_one() -> None:
    with redirect_stderr(Terminal()) as terminal, bar("outer", 4) as outer:
        with outer.nested("inner", 1) as inner:
            time.sleep(1.2)
            inner(1)
        outer(4)
    assert re.findall(r"outer: 100%.*\[(\d\d:\d\d)<", terminal.getvalue())[-1] == "00:00"


def test_without_a_terminal_no_clock_writes_lines() -> None:
    with redirect_stderr(io.StringIO()) as written, bar("quiet", 2) as quiet:
        time.sleep(0.3)
        quiet(2)
    assert written.getvalue().count("quiet:") == 1
