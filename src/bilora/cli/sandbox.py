"""The verb sandbox run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Run code where it can do no harm.", no_args_is_help=True)

PASSED, NOT_PASSED, INFRASTRUCTURE = 0, 1, 4


@app.callback()
def _group() -> None:
    """Keep `run` a verb of its own while it is the only one."""


@app.command("run")
def run(
    file: Annotated[Path, typer.Argument(help="Python source of the program.")],
    tests: Annotated[
        Path | None, typer.Option(help="File with asserts, each a statement of its own; run after the program.")
    ] = None,
    setup: Annotated[Path | None, typer.Option(help="Python source run between program and tests.")] = None,
    cpu_s: Annotated[float, typer.Option(min=0.1, help="Processor time it may use, in seconds.")] = 10,
    memory_mb: Annotated[int, typer.Option(min=64, help="Address space it may use, in MiB.")] = 1024,
    allow_weak: Annotated[bool, typer.Option(help="Run even where system calls cannot be filtered.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Run one program, with tests if given; exit 0 if all pass, 1 if not, 4 if the sandbox itself failed."""
    from bilora.records import Program
    from bilora.sandbox import ProcessSandbox

    program = Program(code=_read(file), setup=_read(setup) if setup else "", tests=_statements(tests) if tests else ())
    with ProcessSandbox(
        workers=1, cpu_s=cpu_s, wall_s=2 * cpu_s + 1, memory_mb=memory_mb, allow_weak=allow_weak
    ) as sandbox:
        outcome = sandbox.run(program)
    if as_json:
        print(json.dumps(outcome.model_dump(mode="json"), indent=2))
    else:
        held = sum(result is True for result in outcome.results)
        print(f"{outcome.status}: {held} of {len(outcome.results)} tests ({outcome.isolation})")
        if outcome.detail:
            print(outcome.detail)
    raise typer.Exit({"passed": PASSED, "infrastructure": INFRASTRUCTURE}.get(outcome.status, NOT_PASSED))


def _read(path: Path) -> str:
    from bilora.errors import BadData

    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadData(path, "the file does not exist.") from None
    except UnicodeDecodeError as error:
        raise BadData(path, f"is not UTF-8 ({error.reason} at byte {error.start}).") from None


def _statements(path: Path) -> tuple[str, ...]:
    import ast

    from bilora.errors import BadData

    source = _read(path)
    try:
        return tuple(ast.unparse(statement) for statement in ast.parse(source).body)
    except SyntaxError as error:
        raise BadData(path, f"is not Python ({error.msg}).", error.lineno) from None
