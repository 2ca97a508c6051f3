"""The command sandbox run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Run code that you do not trust.", no_args_is_help=True)

_DASH = "-"


@app.callback()
def _group() -> None:
    """Make `run` a subcommand, although it is the only one."""


@app.command("run")
def run(
    file: Annotated[str, typer.Argument(help="Python source of the program; - reads standard input.")],
    tests: Annotated[
        Path | None,
        typer.Option(help="File of tests: asserts, check(candidate), test_… functions or unittest."),
    ] = None,
    setup: Annotated[Path | None, typer.Option(help="Python source that runs between program and tests.")] = None,
    cpu_s: Annotated[float, typer.Option(min=0.1, help="Limit of CPU time, in seconds.")] = 10,
    memory_mb: Annotated[int, typer.Option(min=64, help="Limit of the address space, in MiB.")] = 1024,
    allow_weak: Annotated[bool, typer.Option(help="Run even if system calls cannot be filtered.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Run one program, with or without tests.

    Exit 0 if all tests pass, or if there are none and the program ends normally; 10 if not; 11 if they pass only in the
    program's own process; 2 if the tests assert nothing; 13 if the sandbox failed.
    """
    from bilora.errors import BadData, ExitCode
    from bilora.records import Program
    from bilora.sandbox import ProcessSandbox
    from bilora.sandbox.test_file import parse_tests

    statements = parse_tests(_source(str(tests)), tests) if tests else ()
    program = Program(code=_source(file), setup=_source(str(setup)) if setup else "", tests=statements)
    with ProcessSandbox(
        workers=1, cpu_s=cpu_s, wall_s=2 * cpu_s + 1, memory_mb=memory_mb, allow_weak=allow_weak
    ) as sandbox:
        outcome = sandbox.run(program)
    if as_json:
        print(json.dumps(outcome.model_dump(mode="json"), indent=2))
    elif outcome.status == "untested" and tests is None:
        print(f"ended normally; there was no test ({outcome.isolation})")
    else:
        passed = sum(result is True for result in outcome.results)
        print(f"{outcome.status}: {passed} of {len(outcome.results)} tests ({outcome.isolation})")
        if outcome.detail:
            print(outcome.detail)
    if outcome.status == "untested":
        if tests is None:
            return
        raise BadData(tests, f"no assert calls a name that {file} defines, so nothing was tested.")
    codes = {
        "passed": ExitCode.OK,
        "passed-in-process": ExitCode.INCONCLUSIVE,
        "infrastructure": ExitCode.INFRASTRUCTURE,
    }
    raise typer.Exit(codes.get(outcome.status, ExitCode.REGRESSED))


def _source(name: str) -> str:
    """Read Python source in the encoding of its byte order mark or coding line, by default UTF-8."""
    import io
    import tokenize

    from bilora.errors import BadData

    try:
        data = sys.stdin.buffer.read() if name == _DASH else Path(name).read_bytes()
    except FileNotFoundError:
        raise BadData(name, "the file does not exist.") from None
    title = "standard input" if name == _DASH else name
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        reason = f"{error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)
        raise BadData(title, f"is not Python source in UTF-8 or in its declared encoding ({reason}).") from None
