"""Every exit code of the table occurs, and no known error has the code of a crash."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import pkgutil
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from support.checkouts import ROOT, environment_of
from support.ports import free_port
from support.processes import restore_signals

import bilora
from bilora.cli import app, doctor, run_command
from bilora.errors import BiloraError, Busy, ExitCode, Infrastructure
from bilora.evaluation.gate import EXIT_CODES

VERDICTS = {ExitCode.REGRESSED, ExitCode.INCONCLUSIVE, ExitCode.INCOMPARABLE}
BILORA = [sys.executable, "-m", "bilora"]
MANY = 400


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params and nothing else, which is the working directory."""
    shutil.copy(ROOT / "profiles" / "smoke.yaml", tmp_path / "params.yaml")
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    variables = {name: value for name, value in environment_of(folder).items() if name != "PYTHONUNBUFFERED"}
    return {**variables, "PYTHONPATH": str(ROOT / "src")}


def ended(raising: BaseException) -> int:
    """The exit code of a command in which this is raised."""

    def command() -> None:
        raise raising

    one = typer.Typer()
    one.command()(command)
    return run_command(one, [])


def entry(scores: dict[str, float], key: str = "k") -> dict[str, Any]:
    return {"adapter_sha256": "a" * 64, "key": key, "metric": "bleu", "scores": {"bleu": scores}}


def baseline(path: Path, **tasks: dict[str, Any]) -> str:
    document = {"schema": 3, "tasks": {name: {"current": one, "champion": one} for name, one in tasks.items()}}
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def results(path: Path, **tasks: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    words = dict.fromkeys(("title", "headline", "key", "adapter_sha256"), "x")
    fields = {**words, "metrics": [], "scales": {}, "rows": [], "not_run": {}, "summary": {}, "samples": {}}
    document = {
        **{"schema": 2, "profile": "smoke", "harness": "1", "seed": 1, "notes": {}, "judge": [], "latency_s": {}},
        "tasks": {name: fields | {"verdict": None, "entry": one} for name, one in tasks.items()},
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def same(value: float, count: int = MANY) -> dict[str, float]:
    return {f"s{number}": value for number in range(count)}


def test_the_documented_table_matches_the_code() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    output = {int(code): name for code, name in re.findall(r"^\| (\d+) \| ([a-z ]+) \|", text, re.M)}
    assert output == {int(code): code.name.lower().replace("_", " ") for code in ExitCode}


def test_every_kind_of_fault_has_a_code_that_is_no_crash_and_no_verdict() -> None:
    for module in pkgutil.walk_packages(bilora.__path__, "bilora."):
        if not module.name.endswith(("__main__", ".candidate", ".bare")):
            importlib.import_module(module.name)
    kinds = [BiloraError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(kinds) > 10
    for kind in kinds:
        assert isinstance(kind.exit_code, ExitCode), kind
        assert kind.exit_code not in {ExitCode.OK, ExitCode.CRASH, ExitCode.INTERRUPTED, *VERDICTS}, kind


def test_no_error_is_raised_as_the_base_class() -> None:
    bare = [path for path in (ROOT / "src").rglob("*.py") if "raise BiloraError(" in path.read_text(encoding="utf-8")]
    assert bare == []


def test_no_verdict_shares_its_code_with_a_fault() -> None:
    assert EXIT_CODES["pass"] == 0 and {EXIT_CODES[name] for name in EXIT_CODES} == {0, 10, 11, 12, 13}


def test_0_is_done(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(app, ["profile", "list"]) == 0
    assert "* smoke" in capsys.readouterr().out


def test_1_is_a_crash_with_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        ended(ZeroDivisionError())
    code = "import typer; from bilora.cli import run_command; a = typer.Typer(); "
    code += "a.command()(lambda: 1 / 0); run_command(a, [])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(ROOT), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "poetry"], "There is no task 'poetry'"),
        (["serve", "--port", "99999"], "less than or equal to 65535"),
        (["evaluate", "codegen", "--max-samples", "many"], "valid integer"),
        (["plan", "--faster"], "No such option: --faster"),
        (["train"], "name the tasks to train, or give --all"),
        (["train", "codegen", "--all"], "name the tasks to train, or give --all"),
        (["data-split"], "Missing argument"),
        (["generate", "x", "--temperature", "nan"], "--temperature"),
        (["chat", "--temperature", "inf"], "inf is not a finite number"),
        (["generate", "x", "--seed", "99999999999999999999"], "--seed"),
        (["deploy", "o/s", "--minutes", "inf"], "--minutes"),
        (["generate", "x", "--bundle", "nowhere"], "a hub id needs a pinned commit"),
        (["chat", "--bundle", "no@such@name"], "owner/name@commit"),
        (["serve", "--host", "999.1.1.1"], "999.1.1.1 is not an address"),
        (["app"], "it does not exist; run this command in a checkout"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_2_is_bad_input(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert run_command(app, arguments) == 2
    output = capsys.readouterr().err
    assert message in output and output.startswith("bilora: ") and output.count("\n") == 1


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(app, []) == 2
    assert "data-download" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "stage"),
    [
        (["benchmark"], "evaluate@codegen"),
        (["data-process", "codegen"], "data-download@codegen"),
        (["train", "docstring"], "data-split@docstring"),
        (["report"], "benchmark"),
    ],
)
def test_3_is_a_missing_step(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], stage: str) -> None:
    assert run_command(app, arguments) == 3
    assert f"Run `dvc repro {stage}` first" in capsys.readouterr().err


def test_3_is_also_an_evaluation_without_rows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "evaluation").mkdir()
    for name in ("codegen", "docstring"):
        (place / "evaluation" / f"{name}.jsonl").write_text("\n", encoding="utf-8")
    assert run_command(app, ["benchmark"]) == 3
    assert "has no rows. Run `dvc repro -f evaluate@codegen`" in capsys.readouterr().err


def test_4_is_a_fault_that_the_doctor_finds(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"disk": doctor._disk})
    assert run_command(app, ["doctor"]) == 0
    monkeypatch.setattr(doctor, "MIN_FREE_GIB", 10**9)
    assert run_command(app, ["doctor"]) == 4


def test_5_is_an_adapter_that_was_not_measured(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(place / "benchmarking" / "results.json", docstring=entry(same(0.5, 3)))
    assert run_command(app, ["promote"]) == 5
    assert "run `bilora push-adapters`" in capsys.readouterr().err


def test_6_is_a_service_that_does_not_answer(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_OIDC_RESOURCE", raising=False)
    assert run_command(app, ["deploy", "owner/space", "--bundle", "owner/name"]) == 6
    assert "HF_TOKEN is not set" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["serve", "app"])
def test_6_is_a_port_that_is_taken_before_anything_is_loaded(
    place: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    (place / "hf_space").symlink_to(ROOT / "hf_space")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run_command(app, [verb, "--port", str(port)]) == 6
    assert f":{port} is used by another program" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("new", "old", "code", "message"),
    [
        (entry(same(0.5)), entry(same(0.5)), 0, "pass"),
        (entry(same(0.2)), entry(same(0.7)), 10, "regressed"),
        (entry(same(0.9, 3)), entry(same(0.9, 3)), 11, "3 common samples"),
        (entry(same(0.5), key="k"), entry(same(0.5), key="other"), 12, "measured under other conditions"),
    ],
    ids=["pass", "regressed", "inconclusive", "incomparable"],
)
def test_10_to_12_are_the_gate_s_verdicts(
    place: Path, capsys: pytest.CaptureFixture[str], new: Any, old: Any, code: int, message: str
) -> None:
    assert (
        run_command(
            app, ["compare", results(place / "n.json", docstring=new), baseline(place / "o.json", docstring=old)]
        )
        == code
    )
    assert message in capsys.readouterr().out


def test_an_entry_without_the_scores_of_its_metric_decides_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = entry({}) | {"scores": {}}
    path = baseline(place / "o.json", docstring=empty)
    assert run_command(app, ["compare", results(place / "n.json", docstring=empty), path]) == 11
    (place / "benchmarking").mkdir()
    baseline(place / "benchmarking" / "baseline.json", docstring=empty)
    assert run_command(app, ["baseline", "show"]) == 0
    assert "BLEU unscored, n 0" in capsys.readouterr().out


def test_baseline_show_prints_the_reports_scale(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "benchmarking").mkdir()
    baseline(place / "benchmarking" / "baseline.json", docstring=entry(same(0.525)))
    assert run_command(app, ["baseline", "show"]) == 0
    assert "docstring current: " in (printed := capsys.readouterr().out) and "BLEU 52.5, n " in printed


def test_12_is_also_two_files_without_a_task(place: Path) -> None:
    assert run_command(app, ["compare", results(place / "n.json"), baseline(place / "o.json")]) == 12


def test_130_is_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(KeyboardInterrupt()) == 130
    assert "continues from here" in capsys.readouterr().err


MACHINE = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "disk quota",
    errno.EACCES: "is not accessible to this user",
    errno.EROFS: "read-only disk",
    errno.EMFILE: "ulimit -n",
    errno.EIO: "check the disk",
}
INPUT = {
    errno.EISDIR: "is a folder, not a file",
    errno.ENOTDIR: "has a file where a folder is needed",
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.ENOENT: "does not exist",
    errno.EEXIST: "already exists",
}


@pytest.mark.parametrize(
    ("number", "message", "code"),
    [
        *((number, message, 13) for number, message in MACHINE.items()),
        *((number, message, 2) for number, message in INPUT.items()),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else "",
)
def test_13_is_a_fault_of_the_machine_with_advice_for_its_cause(
    capsys: pytest.CaptureFixture[str], number: int, message: str, code: int
) -> None:
    assert ended(OSError(number, os.strerror(number), "some/file.json")) == code
    output = capsys.readouterr().err
    assert output.startswith("bilora: some/file.json ") and message in output and output.count("\n") == 1
    assert ("free some space" in output) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert ("o file is half-written; finished files stay" in output) == (code == 13)


def test_an_unknown_error_of_the_operating_system_is_a_crash() -> None:
    with pytest.raises(OSError, match="strange"):
        ended(OSError(errno.EILSEQ, "strange"))


AS_NOBODY = """
import os, sys
import bilora.cli, bilora.tasks, bilora.publishing.promote, bilora.evaluation.compare, bilora.evaluation.verdicts
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
sys.argv[0] = "bilora"
bilora.cli.main()
"""
"""Runs a command as another user than root, who may do everything; what it imports was read before."""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["baseline", "forget", "docstring"], 13, "is not accessible to this user"),
        (["compare", "secret.json", "benchmarking/baseline.json"], 13, "secret.json: is not accessible to this user"),
        (["plan"], 13, "params.yaml: is not accessible to this user"),
    ],
    ids=["writing", "reading", "params"],
)
def test_a_missing_permission_is_not_reported_as_a_full_disk(
    place: Path, arguments: list[str], code: int, message: str
) -> None:
    (place / "benchmarking").mkdir()
    baseline(place / "benchmarking" / "baseline.json", docstring=entry(same(0.5)))
    (place / "secret.json").touch(mode=0)
    if arguments == ["plan"]:
        (place / "params.yaml").chmod(0)
    for folder in (place / "benchmarking", place):
        folder.chmod(0o555)
    command = [sys.executable, "-c", AS_NOBODY, *arguments]
    done = subprocess.run(command, cwd=place, env=environment(place), capture_output=True, text=True, check=False)
    for folder in (place, place / "benchmarking"):
        folder.chmod(0o755)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert message in done.stderr and "space" not in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_crash(place: Path) -> None:
    code = "import typer; from bilora.cli import run_command; a = typer.Typer()\n"
    code += "a.command()(lambda: print('a line\\n' * 100_000, flush=True)); raise SystemExit(run_command(a, []))"
    for command, ends in (([sys.executable, "-c", code], 13), ([*BILORA, "profile", "list"], 0)):
        with subprocess.Popen(
            command, cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            message = process.stderr.read()
        assert process.returncode == ends, message
        assert message.count("\n") == (ends == 13) and "Traceback" not in message and "Exception ignored" not in message


def test_python_m_bilora_is_bilora(place: Path) -> None:
    done = subprocess.run(
        [*BILORA, "train", "poetry"], cwd=place, env=environment(place), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[0][:26]) == (2, "bilora: There is no task '")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"[1, 2]", "neither a results.json nor a baseline.json"),
        (b'{"tasks": [1]}', "neither a results.json nor a baseline.json"),
        (b'{"tasks": {}}', "is not a baseline of schema 3"),
        (b'{"schema": 1, "tasks": {"docstring": {"scores": {}}}}', "is not a baseline of schema 3"),
        (b'{"schema": 2, "tasks": {}}', "is of schema 2, not 3; run `bilora baseline upgrade`"),
        (b'{"tasks": {"docstring": {"entry": []}}}', "is not a results.json"),
        (b'{"profile": "x", "schema": 0, "tasks": {}}', "is of schema 0, not 2; run `dvc repro -f benchmark`"),
        (
            b'{"profile": "x", "schema": 2, "tasks": {"docstring": {"title": 1}}}',
            "is damaged (harness: Field required)",
        ),
        (b'{"schema": 3, "tasks": {"docstring": {"champion": {}}}}', "is damaged (tasks.docstring.current: Field"),
        (b'{"profile": "\xe9"}', "is not UTF-8 (byte 0xe9 at position 13)"),
        (b"[" * 100_000, "not JSON"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_incomparable_files_are_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    (place / "odd.json").write_bytes(content)
    good = baseline(place / "good.json", docstring=entry(same(0.5)))
    for order in (["odd.json", good], [good, "odd.json"]):
        assert run_command(app, ["compare", *order]) == 2
        output = capsys.readouterr().err
        assert message in output and output.startswith("bilora: odd.json") and output.count("\n") == 1


def test_a_byte_order_mark_does_not_prevent_a_comparison(place: Path) -> None:
    good = Path(baseline(place / "good.json", docstring=entry(same(0.5))))
    for encoding in ("utf-8-sig", "utf-16"):
        (place / "marked.json").write_text(good.read_text(encoding="utf-8"), encoding=encoding)
        assert run_command(app, ["compare", "marked.json", str(good)]) == 0


@pytest.mark.parametrize("verb", ["report", "promote"])
def test_results_of_another_format_are_one_sentence(place: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    path = Path(results(place / "benchmarking" / "results.json", docstring=entry(same(0.5))))
    document = json.loads(path.read_text(encoding="utf-8"))
    document["tasks"]["docstring"]["verdict"] = {"outcome": "great"}
    path.write_text(json.dumps(document), encoding="utf-8")
    assert run_command(app, [verb]) == 2
    assert (
        "is damaged (tasks.docstring.verdict.task: Field required); run `dvc repro -f benchmark`"
        in capsys.readouterr().err
    )


def test_params_that_are_not_utf_8_are_saved_unchanged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = yaml.safe_dump({"profile": "größe"}, allow_unicode=True).encode("latin-1")
    (place / "params.yaml").write_bytes(edited)
    assert run_command(app, ["profile", "use", "smoke"]) == 0
    assert (place / "params.yaml.kept").read_bytes() == edited
    assert (place / "params.yaml").read_bytes() == (ROOT / "profiles" / "smoke.yaml").read_bytes()


def test_a_missing_lock_file_is_not_reported_as_a_missing_stage(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bilora.workspace import Workspace

    assert ended(Busy("x")) == 6 and ended(Infrastructure("x")) == 13
    with pytest.raises(BiloraError, match=r"git checkout requirements\.txt") as caught:
        Workspace(place).lock_sha256()
    assert caught.value.exit_code == 2 and "dvc repro" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda value: value.name)
def test_a_signal_to_the_page_ends_all_its_processes(place: Path, end: signal.Signals) -> None:
    for name in ("hf_space", ".streamlit"):
        (place / name).symlink_to(ROOT / name)
    port = free_port()
    with subprocess.Popen(
        [*BILORA, "app", "--port", str(port)],
        cwd=place, env=environment(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=restore_signals,
    ) as process:  # fmt: skip
        try:
            until = time.monotonic() + 60
            while not answers(port):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.1)
            process.send_signal(end)
            assert process.wait(30) in (0, ExitCode.INTERRUPTED, -end)
        finally:
            process.kill()
    assert not answers(port) and session(process.pid) == []


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def session(leader: int) -> list[int]:
    """The processes of a session, found through /proc."""
    commands = []
    for entry_ in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry_ / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            commands.append(int(entry_.name))
    return commands


@pytest.mark.parametrize(
    ("change", "arguments", "code", "message"),
    [
        ({"base": {"kind": "folder", "path": "models/absent"}}, ["plan"], 2, "models/absent: there is no model here"),
        ({"tracking": {"sinks": ["no_such_tracker"]}}, ["train", "codegen"], 2, "tracking.sinks.0"),
        ({"tracking": {"sinks": ["wandb"]}}, ["train", "codegen"], 4, 'Run `pip install "bilora[sinks]"`'),
    ],
    ids=["no model", "no such tracker", "tracker not installed"],
)
def test_an_unmet_requirement_of_params_is_one_sentence(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    document = yaml.safe_load((place / "params.yaml").read_text(encoding="utf-8"))
    (place / "params.yaml").write_text(yaml.safe_dump({**document, **change}), encoding="utf-8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    assert run_command(app, arguments) == code
    assert message in capsys.readouterr().err


def test_a_run_record_of_another_version_does_not_end_the_plan(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("a", "[]"), ("b", '{"task": "codegen"}'), ("c", "no JSON")):
        (place / "runs" / name).mkdir(parents=True)
        (place / "runs" / name / "run.json").write_text(text, encoding="utf-8")
    (place / "benchmarking").symlink_to(ROOT / "benchmarking")
    assert run_command(app, ["plan"]) == 0
    assert "last run here" not in capsys.readouterr().out


@pytest.mark.parametrize("key", ["", "  ", "schlüssel", b"\xff".decode(errors="surrogateescape")])
def test_a_key_that_no_client_could_send_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    monkeypatch.setenv("CLIENT_KEY", key)
    assert run_command(app, ["serve", "--api-key-env", "CLIENT_KEY"]) == 2
    output = capsys.readouterr().err
    assert "CLIENT_KEY" in output and output.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_empty_input_or_discarded_output(place: Path, closed: str) -> None:
    for verb, ends in (("data-download codegen", 0), ("sandbox run -", 0), ("data-download nope", 2)):
        command = f"{shlex.join(BILORA)} {verb} {closed}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=place,
            env=environment(place),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == ends, done.stderr
        assert "Traceback" not in done.stderr and "bilora: " not in done.stdout
    lines = (place / "data" / "raw" / "codegen.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line) for line in lines)  # no stream's text went into the file that was opened first


def test_a_folder_instead_of_a_file_is_reported_without_the_temporary_file(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "data" / "raw" / "codegen.jsonl").mkdir(parents=True)
    assert run_command(app, ["data-download", "codegen"]) == ExitCode.BAD_INPUT
    message = capsys.readouterr().err
    assert "codegen.jsonl is a folder, not a file" in message and ".tmp" not in message


def test_a_read_only_folder_is_reported_without_the_temporary_file(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*, dir: Path, prefix: str, suffix: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"{dir}/{prefix}x{suffix}")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert run_command(app, ["data-download", "codegen"]) == ExitCode.INFRASTRUCTURE
    message = capsys.readouterr().err
    assert "data/raw is not accessible to this user" in message and ".tmp" not in message


def test_missing_results_are_a_missing_step(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(app, ["compare"]) == ExitCode.MISSING_STEP
    assert "Run `dvc repro benchmark` first" in capsys.readouterr().err
    assert run_command(app, ["compare", "mine.json"]) == ExitCode.BAD_INPUT


def test_absent_params_name_the_command_that_writes_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "params.yaml").unlink()
    assert run_command(app, ["plan"]) == ExitCode.BAD_INPUT
    assert "`bilora profile use smollm2` writes one" in capsys.readouterr().err


def test_an_argument_in_an_ascii_locale_gets_advice_for_the_locale(place: Path) -> None:
    old = {**environment(place), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*BILORA, "data-download", "nö"], cwd=place, env=old, capture_output=True, check=False)
    assert done.returncode == ExitCode.BAD_INPUT
    assert b"is not ASCII" in done.stderr and b"PYTHONUTF8=1" in done.stderr and b"not UTF-8" not in done.stderr
