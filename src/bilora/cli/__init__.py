"""The command line: one small module per verb. Heavy imports happen inside the verbs."""

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
app.command("push", hidden=True)(push_adapters.push_adapters)  # the same, in a word
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
"""Environment variable with the path of a file to which the exit code and the sentence of a fault are written too."""


def guarded(run: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: a known fault is one sentence on standard error, never a traceback."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal's encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        refuse_bytes(sys.argv[1:] if arguments is None else arguments)
        code = run(arguments, standalone_mode=False)
    except BiloraError as error:
        return _say(str(error), error.exit_code)
    except typer.TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        return _say(str(missing), missing.exit_code)
    except OSError as error:
        return _system_fault(error)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # Typer ends with 1 then
            return _system_fault(leaving.__context__)
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except RuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):  # Python 3.11's word for Ctrl-C while a class is made
            raise
        return _interrupted()
    if code == ExitCode.INTERRUPTED:  # Typer's word for Ctrl-C
        return _interrupted()
    try:
        print(end="", flush=True)
    except OSError as error:
        if error.errno != errno.EPIPE:
            return _system_fault(error)
        _drop_output()  # the reader has left, and everything is done
    if isinstance(code, int) and code:
        _record_fault(code, "")
    return code if isinstance(code, int) else ExitCode.OK


def _open_standard_streams() -> None:
    """Open a standard stream that was closed to nowhere; else the next file that is opened takes its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                nowhere = os.open(os.devnull, os.O_RDWR)
                if nowhere != number:
                    os.dup2(nowhere, number)
                    os.close(nowhere)
                setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _say(sentence: str, code: int) -> int:
    print(f"bilora: {sentence}", file=sys.stderr)
    _record_fault(code, sentence)
    return code


def _record_fault(code: int, sentence: str) -> None:
    """Write why a command failed into the file that LAST_FAULT names, for a program that runs stages through DVC."""
    if path := os.environ.get(LAST_FAULT):
        with contextlib.suppress(OSError):
            Path(path).write_text(f"{int(code)} {sentence}", encoding="utf-8", errors="backslashreplace")


def _usage(error: typer.TyperException) -> int:
    """Say what is wrong with a command's arguments."""
    context = getattr(error, "ctx", None)
    what = " ".join(error.format_message().split()).rstrip(".")
    if not what:  # Typer has shown the help already
        return ExitCode.BAD_INPUT
    hint = f"; `{context.command_path} --help` lists what there is." if context is not None else "."
    return _say(f"{what}{hint}", ExitCode.BAD_INPUT)


def _system_fault(error: OSError) -> int:
    """Say what the operating system refused; an error of no known kind is a crash."""
    if error.errno == errno.EPIPE and error.filename is None:
        _drop_output()
        return _say("the reader of the output has left, so this ended before it was done.", ExitCode.INFRASTRUCTURE)
    if (known := exit_sentence(error)) is None:
        raise error
    code, text = known
    return _say(text, code)


def _drop_output() -> None:
    """Send the rest of standard output nowhere, so that Python does not fail once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _interrupted() -> int:
    return _say("interrupted; nothing is half-written, and the same command continues from here.", ExitCode.INTERRUPTED)


def main() -> None:
    """Entry point of the `bilora` command."""
    # torch and transformers are half a million objects that stay to the end: looking through them again and again for
    # garbage takes a sixth of their import, and a second when Python ends.
    gc.set_threshold(20_000, 20, 50)
    code = guarded(app)
    gc.freeze()
    raise SystemExit(code)
