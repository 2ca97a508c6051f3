"""Print tables, verdicts and answers to the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from bilora.evaluation.table import Cell
    from bilora.records import EvalRow
    from bilora.results import Results

OUTCOME_STYLES = {"pass": "green", "regressed": "red", "inconclusive": "yellow", "incomparable": "yellow"}


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    return console


def print_table(results: Results) -> None:
    """Print one table per dataset: a row per metric, a column per system, 95 % intervals in brackets."""
    from rich.markup import escape
    from rich.table import Table

    from bilora.evaluation.table import build_table

    console, contents = _console(), build_table(results)
    for section in contents.sections:
        drawn = Table(title=section.title, title_justify="left", header_style="bold")
        drawn.add_column("metric")
        for column in contents.columns:
            drawn.add_column(column, justify="right")
        drawn.add_column("trivial answers score", justify="right")
        for row in section.rows:
            trivial_scores = ", ".join(f"{score.name} {score.text}" for score in row.trivial_scores)
            if row.note:
                cells = [f"not run: {row.note}", *[""] * (len(contents.columns) - 1)]
            else:
                cells = [_cell(row.cells[column]) for column in contents.columns]
            label = f"{row.label} ({row.tier})" if row.tier else row.label
            drawn.add_row(escape(label), *(escape(cell) for cell in cells), escape(trivial_scores))
        console.print(drawn)
    for system, note in contents.notes.items():
        console.print(escape(f"{system}: {note}"))


def _cell(cell: Cell) -> str:
    return f"{cell.text} [{cell.interval}]" if cell.interval else cell.text


def print_verdicts(results: Results) -> None:
    """Print the verdict of every adapter, with the guards' results."""
    from rich.markup import escape

    from bilora.evaluation.guard_checks import guard_lines

    console = _console()
    for name, task in results.tasks.items():
        if verdict := task.verdict:
            style = OUTCOME_STYLES[verdict.outcome]
            console.print(f"[{style} bold]{verdict.outcome}[/]  {escape(name)}: {escape(verdict.reason)}")
            for line in guard_lines(name, task):
                console.print(f"  {escape(line)}")


def print_answers(rows: Mapping[str, Sequence[EvalRow]]) -> None:
    """Print every answer with its scores; control characters are escaped."""
    for task_rows in rows.values():
        for row in task_rows:
            scores = ", ".join(
                f"{score.metric} {'unscored' if score.value is None else f'{score.value:.3f}'}" for score in row.scores
            )
            print(f"--- {row.task} {row.sample.id} {row.completion.system}: {scores}")
            print("\n".join(ascii(line)[1:-1] for line in row.answer.splitlines()))
