"""How tables and verdicts look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilora.records import EvalRow

STYLES = {"pass": "green", "regressed": "red", "inconclusive": "yellow", "incomparable": "yellow"}


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    return console


def _cell(cell: Mapping[str, Any]) -> str:
    interval = cell.get("interval")
    return f"{cell['text']} [{interval}]" if interval else str(cell["text"])


def print_table(results: Mapping[str, Any]) -> None:
    """Print one table a data set: metrics down, systems across, 95 % intervals in brackets."""
    from rich.markup import escape
    from rich.table import Table

    from bilora.evaluation.table import table

    console, plain = _console(), table(results)
    for section in plain["sections"]:
        shown = Table(title=section["title"], title_justify="left", header_style="bold")
        shown.add_column("metric")
        for column in plain["columns"]:
            shown.add_column(column, justify="right")
        shown.add_column("trivial answers score", justify="right")
        for row in section["rows"]:
            floors = ", ".join(f"{name} {text}" for name, text in _floors(row))
            if note := row.get("note"):
                cells = [f"not run: {note}", *[""] * (len(plain["columns"]) - 1)]
            else:
                cells = [_cell(row["cells"][column]) for column in plain["columns"]]
            label = f"{row['label']} ({row['tier']})" if row.get("tier") else row["label"]
            shown.add_row(escape(label), *(escape(cell) for cell in cells), escape(floors))
        console.print(shown)
    for system, note in plain["notes"].items():
        console.print(escape(f"{system}: {note}"))


def _floors(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    floors = row.get("floors") or {}
    if isinstance(floors, Mapping):
        return [(str(name), str(text)) for name, text in floors.items()]
    return [(str(one["name"]), str(one["text"])) for one in floors]


def print_verdicts(results: Mapping[str, Any]) -> None:
    """Print the gate's word on every adapter."""
    from rich.markup import escape

    console = _console()
    for name, task in results["tasks"].items():
        verdict = task["verdict"]
        style = STYLES[verdict["outcome"]]
        console.print(f"[{style} bold]{verdict['outcome']}[/]  {escape(name)}: {escape(verdict['reason'])}")


def print_answers(rows: Mapping[str, Sequence[EvalRow]]) -> None:
    """Print every answer with its scores; control characters are shown, not obeyed."""
    for found in rows.values():
        for row in found:
            scores = ", ".join(
                f"{score.metric} {'unscored' if score.value is None else f'{score.value:.3f}'}" for score in row.scores
            )
            print(f"--- {row.task} {row.sample.id} {row.completion.system}: {scores}")
            print("\n".join(ascii(line)[1:-1] for line in row.answer.splitlines()))
