"""The command line: one module per command. Commands import heavy packages when they run."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import sys
from pathlib import Path

import typer

from bilora.cli import (
    base,
    baseline,
    benchmark,
    chat,
    compare,
    data,
    deploy,
    doctor,
    evaluate,
    feedback,
    generate,
    judge,
    page,
    pin,
    plan,
    profile,
    promote,
    push_adapters,
    report,
    rollback,
    sandbox,
    serve,
    sweep,
    train,
)
from bilora.cli.user_input import refuse_bytes
from bilora.errors import BiloraError, ExitCode
from bilora.extras import missing_extra
from bilora.system_errors import exit_sentence

app = typer.Typer(
    name="bilora",
    help="An adapter factory: one frozen base, one LoRA adapter per task, shipped only when the numbers prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("data-download")(data.data_download)
app.command("data-process")(data.data_process)
app.command("data-split")(data.data_split)
app.command("train")(train.train)
app.command("sweep")(sweep.sweep)
app.command("evaluate")(evaluate.evaluate)
app.command("benchmark")(benchmark.benchmark)
app.command("push-adapters")(push_adapters.push_adapters)
app.command("push", hidden=True)(push_adapters.push_adapters)  # a short alias
app.command("promote")(promote.promote)
app.command("rollback")(rollback.rollback)
app.command("deploy")(deploy.deploy)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("pin")(pin.pin)
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)
app.command("app")(page.app)
app.command("serve")(serve.serve)
app.command("chat")(chat.chat)
app.command("generate")(generate.generate)
app.add_typer(base.app, name="base")
app.add_typer(profile.app, name="profile")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(baseline.app, name="baseline")
app.add_typer(judge.app, name="judge")
app.add_typer(feedback.app, name="feedback")


LAST_FAULT = "BILORA_LAST_FAULT"
"""The environment variable with the path of a file that receives the exit code and the message of an error."""


def run_command(run: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code. A known error is one sentence on standard error, without a traceback."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape what the terminal's encoding cannot print
            stream.reconfigure(errors="backslashreplace")
    try:
        refuse_bytes(sys.argv[1:] if arguments is None else arguments)
        code = run(arguments, standalone_mode=False)
    except BiloraError as error:
        return _print_error(str(error), error.exit_code)
    except typer.TyperException as error:
        return _usage_error(error)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        return _print_error(str(missing), missing.exit_code)
    except OSError as error:
        return _system_error(error)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer exits with 1 then
            return _system_error(error.__context__)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except RuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):  # Python 3.11 on Ctrl-C during a class definition
            raise
        return _interrupted()
    if code == ExitCode.INTERRUPTED:  # Typer on Ctrl-C
        return _interrupted()
    try:
        print(end="", flush=True)
    except OSError as error:
        if error.errno != errno.EPIPE:
            return _system_error(error)
        _discard_output()  # the reader has left after the command's work
    if isinstance(code, int) and code:
        _record_fault(code, "")
    return code if isinstance(code, int) else ExitCode.OK


def _open_standard_streams() -> None:
    """Open closed standard streams to the null device; otherwise the next opened file would get their number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                null = os.open(os.devnull, os.O_RDWR)
                if null != number:
                    os.dup2(null, number)
                    os.close(null)
                setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _print_error(message: str, code: int) -> int:
    print(f"bilora: {message}", file=sys.stderr)
    _record_fault(code, message)
    return code


def _record_fault(code: int, message: str) -> None:
    """Write code and message into the file that LAST_FAULT names: DVC does not pass them on."""
    if path := os.environ.get(LAST_FAULT):
        with contextlib.suppress(OSError):
            Path(path).write_text(f"{int(code)} {message}", encoding="utf-8", errors="backslashreplace")


def _usage_error(error: typer.TyperException) -> int:
    """Print what is wrong with a command's arguments."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    if not message:  # Typer has printed the help
        return ExitCode.BAD_INPUT
    hint = f"; see `{context.command_path} --help`." if context is not None else "."
    return _print_error(f"{message}{hint}", ExitCode.BAD_INPUT)


def _system_error(error: OSError) -> int:
    """Print an error of the operating system; raise it if it is not a known one."""
    if error.errno == errno.EPIPE and error.filename is None:
        _discard_output()
        return _print_error(
            "the reader of the output has left, so this command stopped before it was done.", ExitCode.INFRASTRUCTURE
        )
    if (known := exit_sentence(error)) is None:
        raise error
    code, text = known
    return _print_error(text, code)


def _discard_output() -> None:
    """Redirect standard output to the null device, so that Python does not fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _interrupted() -> int:
    return _print_error(
        "interrupted; no file is half-written, and the same command continues from here.", ExitCode.INTERRUPTED
    )


def main() -> None:
    """Entry point of the `bilora` command."""
    # torch and transformers create half a million permanent objects. Garbage collections among them would take a sixth
    # of their import time, and a second at exit.
    gc.set_threshold(20_000, 20, 50)
    code = run_command(app)
    gc.freeze()
    raise SystemExit(code)
