"""The command line: one small module a verb. Heavy imports happen inside the verbs."""

from __future__ import annotations

import errno
import sys

import typer

from bilora.cli import (
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
    plan,
    pretrain,
    profile,
    promote,
    push_adapters,
    report,
    rollback,
    sandbox,
    serve,
    train,
)
from bilora.errors import BiloraError

app = typer.Typer(
    name="bilora",
    help="An adapter factory: one frozen base, one LoRA adapter a task, shipped only when the numbers prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("data-download")(data.data_download)
app.command("data-process")(data.data_process)
app.command("data-split")(data.data_split)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("benchmark")(benchmark.benchmark)
app.command("push-adapters")(push_adapters.push_adapters)
app.command("push", hidden=True)(push_adapters.push_adapters)  # the same, in a word
app.command("promote")(promote.promote)
app.command("rollback")(rollback.rollback)
app.command("deploy")(deploy.deploy)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)
app.command("pretrain")(pretrain.pretrain)
app.command("app")(page.app)
app.command("serve")(serve.serve)
app.command("chat")(chat.chat)
app.command("generate")(generate.generate)
app.add_typer(profile.app, name="profile")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(baseline.app, name="baseline")
app.add_typer(judge.app, name="judge")
app.add_typer(feedback.app, name="feedback")

INTERRUPTED = 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)


def guarded(run: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run a door: a known fault is one sentence on standard error and its exit code, never a traceback."""
    try:
        run(arguments, standalone_mode=True)
    except BiloraError as error:
        print(f"bilora: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(
            f"bilora: {error.strerror}{where}; nothing is half-written. Make room and run it again.",
            file=sys.stderr,
        )
        return 1
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:  # Typer's word for Ctrl-C
            return _interrupted()
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except RuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):  # Python 3.11's word for Ctrl-C while a class is made
            raise
        return _interrupted()
    return 0


def _interrupted() -> int:
    print("bilora: interrupted; nothing is half-written, and the same command goes on from here.", file=sys.stderr)
    return INTERRUPTED


def main() -> None:
    """Entry point of the `bilora` command."""
    raise SystemExit(guarded(app))
