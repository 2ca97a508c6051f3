"""`bilora generate` and `bilora chat` from the command line, on both engines."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.checkouts import ROOT, environment_of
from support.command_line import bilora
from support.processes import restore_signals
from support.random_adapters import write_random_adapter

from bilora.bases.kinds.folder import FolderBase

pytestmark = pytest.mark.slow

BILORA = [sys.executable, "-c", "from bilora.cli import main; main()"]
LLAMACPP = pytest.param(
    {"engine": "llamacpp", "quantization": "f32"},
    id="llamacpp",
    marks=pytest.mark.skipif(find_spec("llama_cpp") is None, reason='pip install "bilora[llamacpp]"'),
)


@pytest.fixture(scope="module", params=[pytest.param({}, id="torch"), LLAMACPP])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params that name the engine, the smoke base and two adapters."""
    folder = tmp_path_factory.mktemp("place")
    document: dict[str, Any] = yaml.safe_load((ROOT / "profiles" / "smoke.yaml").read_text(encoding="utf-8"))
    document["inference"] = request.param
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    (folder / "models").symlink_to(ROOT / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed, (name, target) in enumerate({"codegen": "qkv_proj", "docstring": "down_proj"}.items()):
            write_random_adapter(Path("adapters") / name, FolderBase.at("models/smoke"), [target], seed=seed)
    return folder


def environment(place: Path) -> dict[str, str]:
    search = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**environment_of(place), "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}


def answers(place: Path, *arguments: str, stdin: str = "") -> str:
    done = bilora(place, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_question_is_an_argument_or_standard_input(place: Path) -> None:
    given = answers(place, "generate", "sort a list", "--model", "codegen", "--max-tokens", "8")
    assert given.strip() and given == answers(
        place, "generate", "-m", "codegen", "--max-tokens", "8", stdin="sort a list\n"
    )
    assert given != answers(place, "generate", "sort a list", "-m", "docstring", "--max-tokens", "8")


def test_sampling_options_take_effect(place: Path) -> None:
    sampled = ["generate", "sum", "--temperature", "1.5", "--top-p", "0.9", "--max-tokens", "8", "--seed"]
    assert answers(place, *sampled, "1") == answers(place, *sampled, "1") != answers(place, *sampled, "2")
    whole = answers(place, "generate", "sum", "--max-tokens", "8")
    cut = answers(place, "generate", "sum", "--max-tokens", "8", "--stop", whole[3:6], "--stop", "§")
    assert cut == whole[: whole.index(whole[3:6])] + "\n"


def test_an_invalid_question_is_refused_in_one_sentence(place: Path) -> None:
    for arguments, sentence in (
        (["generate", "x", "-m", "poetry"], "no such model is loaded; loaded: base, codegen, docstring"),
        (["generate"], "it is empty; pass it as an argument"),
        (["chat", "-m", "poetry"], "no such model is loaded"),
    ):
        done = bilora(place, *arguments)
        assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_conversation_continues_with_another_adapter(place: Path) -> None:
    typed = "sum of a list\n/adapter docstring\nsum of a list\n/new\n/adapter codegen\nsum of a list\n/quit\n"
    lines = answers(place, "chat", "-m", "codegen", "--max-tokens", "8", stdin=typed).splitlines()
    alone = {
        name: answers(place, "generate", "sum of a list", "-m", name, "--max-tokens", "8").splitlines()
        for name in ("codegen", "docstring")
    }
    length = len(alone["codegen"])
    assert lines[:length] == lines[-length:] == alone["codegen"]
    assert lines[length:-length] != alone["docstring"]  # the earlier turns count
    stayed = answers(place, "chat", "-m", "codegen", "--max-tokens", "8", stdin="sum of a list\nsum of a list\n")
    assert lines[length:-length] != stayed.splitlines()[length:]


def test_a_chat_reports_what_it_cannot_do(place: Path) -> None:
    done = bilora(place, "chat", "--max-tokens", "4", stdin="/adapter poetry\n/adapter\n/bow\n" + "list " * 600 + "\n")
    assert done.returncode == 0 and done.stdout == ""
    _, poetry, bare, bow, long = done.stderr.strip().splitlines()
    assert "there is no poetry; the model is base, of base, codegen, docstring" in poetry
    assert bare == "chat: the model is base, of base, codegen, docstring."
    assert "there is no /bow" in bow and "too many for the context of 512 tokens; shorten the question" in long


def test_an_invalid_line_does_not_end_the_chat(place: Path) -> None:
    piped = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"\xef\xbb\xbf/adapter codegen\nna\xefve\nsum\n")))
    done = bilora(place, "chat", "--max-tokens", "4", stdin=piped)
    assert done.returncode == 0
    message = done.stderr.splitlines()
    assert message[1] == "chat: this line: is not UTF-8 (byte 0xef at position 2); write it in UTF-8."
    assert done.stdout.count("\n") >= 1 and "there is no" not in done.stderr


def test_the_advice_for_a_cut_off_answer_depends_on_the_limit(place: Path) -> None:
    short = bilora(place, "generate", "sum", "--max-tokens", "4")
    assert "cut off after 4 tokens; --max-tokens allows more" in short.stderr
    full = bilora(place, "generate", "list " * 490, "--max-tokens", "5000", "--temperature", "2")
    assert ": the context of 512 tokens is full; shorten the question" in full.stderr
    long = "list " * 490 + "\n"
    talk = bilora(place, "chat", "--max-tokens", "5000", "--temperature", "2", stdin=long + "sum\n")
    assert "is full; start a new conversation with /new" in talk.stderr
    assert "tokens are too many for the context of 512 tokens; start a new conversation with /new" in talk.stderr


def test_ctrl_c_ends_an_answer_and_not_the_chat(place: Path) -> None:
    """A person's terminal, so it is a process of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*BILORA, "chat", "--max-tokens", "400", "--temperature", "2"],
        cwd=place, env=environment(place), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=restore_signals,
    )  # fmt: skip
    os.close(theirs)

    def until(text: bytes) -> None:
        """Read up to `text`; what comes with it is read too."""
        seen = b""
        while text not in seen or not seen.strip():
            assert select.select([ours], [], [], 60)[0], seen
            seen += os.read(ours, 4096)

    try:
        until(b"base> ")
        os.write(ours, b"sum\n")
        until(b"sum\r\n")
        until(b"")
        process.send_signal(signal.SIGINT)
        until(b"stopped; neither")
        os.write(ours, b"/quit\n")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_missing_engine_is_one_sentence(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "profiles" / "smoke.yaml").read_text(encoding="utf-8"))
    document["inference"] = {"engine": "llamacpp", "quantization": "q8_0"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "llama_cpp.py").write_text("raise ImportError\n", encoding="utf-8")
    search = os.pathsep.join([str(tmp_path / "without"), str(ROOT / "src")])
    done = subprocess.run(
        [*BILORA, "generate", "sum"],
        cwd=tmp_path, env={**environment(tmp_path), "PYTHONPATH": search}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        'bilora: llama.cpp is not installed. Run `pip install "bilora[llamacpp]"`, or set `inference.engine: torch`.\n'
    )
