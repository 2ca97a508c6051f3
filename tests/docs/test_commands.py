"""Every command in a block of README.md, CONTRIBUTING.md and docs/ is run by a test, or listed here with a reason.

Options are checked in the blocks and in the text. What else Markdown names is checked by architecture/test_markdown.py.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from support.checkouts import ROOT
from support.guide_examples import markdown_blocks

from bilora.cli import app

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLLOWED = {"tutorial.md"}
"""Pages whose blocks are all run, in order, by a test of their own."""
PROGRAMS = {"bilora", "dvc", "make", "pip", "pre-commit", "python", "streamlit"}
PROGRAM = re.compile(r"(?:[A-Z_]+=(?:\"[^\"]*\"|\S*)\s+)*(\S+)")
"""A command's first word after variables."""

RUN = {
    "cli/test_add_a_base.py": ['bilora generate "Return the sum of a list." --max-tokens 8', "bilora train codegen"],
    "cli/test_add_a_phase.py": ["dvc repro train@docstring"],
    "cli/test_add_a_source.py": ["bilora data-download docstring"],
    "cli/test_exit_codes.py": ["bilora deploy owner/space --bundle owner/name"],
    "cli/test_loop.py": [
        "bilora doctor",
        "bilora plan",
        "bilora sweep codegen",
        "bilora train --all",
        "dvc repro train",
    ],
    "cli/test_chat.py": [
        'bilora generate "Write a function that sorts a list." --model codegen',
        "bilora chat",
    ],
    "cli/test_feedback.py": [
        "bilora feedback delete 01KGE3H900SVCYXAW440G165C0",
        "bilora feedback export --to DESTINATION",
        "bilora feedback pairs",
    ],
    "cli/test_pin.py": ["bilora profile use phi3-mini", "bilora pin"],
    "cli/test_publish.py": [
        "bilora promote",
        "bilora rollback",
        "bilora rollback --to 4f2a91",
        "bilora serve --bundle hub --api-key-env KEY",
    ],
    "cli/test_sandbox_run.py": ["bilora sandbox run FILE [--tests TESTS] [--setup FILE] [--json]"],
    "cli/test_serve.py": [
        "bilora serve",
        "bilora serve --print vllm",
        "bilora serve --print ray --adapters-at s3://bucket/bundle",
    ],
    "docs/test_tutorial.py": ["dvc repro benchmark"],
    "training/test_ranks.py": ["bilora train codegen --devices 2"],
}
"""Commands by the test that runs them, or runs the same verb and options on other names."""

NOT_RUN = {
    "installs packages": [
        "make install",
        ". .venv/bin/activate",
        "pre-commit install",
        "pip install -r requirements.txt",
        "pip install --no-deps -e .",
        'pip install -e ".[train,gpu]"',
        'pip install "bilora[llamacpp]"',
        'CMAKE_ARGS="-DCMAKE_CXX_FLAGS=\'-fno-tree-dse -fno-dse\'" pip install --no-cache-dir "bilora[llamacpp]"',
        "python -m venv space",
        "space/bin/pip install -r hf_space/requirements.txt",
        "make vllm",
        "bilora base fetch",
    ],
    "runs these tests": ["make test"],
    "takes ten minutes": ["make demo"],
    "needs a GPU or the hub": ["dvc repro"],
    "test_loop trains this task with fewer steps": ["dvc repro train@naming"],
    "test_add_a_source runs the stage's own command": ["dvc repro data-split@docstring"],
    "trains 16 variants; test_loop trains two": [
        "bilora sweep codegen --rate 1e-3 --rate 2e-3 --rank 8 --rank 16 --seed 1 --seed 2 "
        "[--layers attention --layers all] [--steps 100]"
    ],
    "becomes Streamlit; tests/app run the page": [
        "bilora app",
        "BILORA_ENDPOINT=http://HOST:8000/v1 bilora app",
    ],
    "removes files that no commit names": ["dvc gc --workspace"],
    "measures for minutes": [
        "python perf/app.py --python space/bin/python",
        "python perf/engines.py --engines torch llamacpp",
        "python perf/evaluation.py",
        "python perf/inference.py",
        "python perf/inference.py --shape half-billion",
        "python perf/inference.py --shape phi3-mini --place FOLDER",
        "python perf/peers.py --llamacpp --clients 1 --each 4 --rounds 5",
        "python perf/peers.py --vllm .venv-vllm/bin/vllm --compare 40",
        "python perf/peers.py --vllm .venv-vllm/bin/vllm [--base]",
        "python studies/engine_agreement.py --prompts 200 --samples 100",
    ],
}
"""Commands that no test runs, by the reason."""


def program(command: str) -> str:
    """Return the name of the program that a command runs."""
    match = PROGRAM.match(command)
    return match[1].rpartition("/")[2] if match else ""


def block_commands(page: Path) -> list[str]:
    """Return the commands of a page's blocks: of those whose first line is one, every line."""
    commands = []
    for block in markdown_blocks(page):
        lines = [re.split(r"\s#\s", line)[0] for line in block.text.splitlines()]
        if not block.language and lines and program(lines[0]) in PROGRAMS:
            commands += [part.strip() for line in lines for part in line.split("&&") if part.strip()]
    return commands


def written_commands() -> dict[str, str]:
    """Return the commands of all blocks, each with a page that has it."""
    return {command: page.name for page in PAGES if page.name not in FOLLOWED for command in block_commands(page)}


def test_every_command_is_run_or_listed() -> None:
    listed = [command for commands in (*RUN.values(), *NOT_RUN.values()) for command in commands]
    written = written_commands()
    assert sorted(written.keys() - listed) == [], "add them to RUN or to NOT_RUN"
    assert sorted(set(listed) - written.keys()) == [], "no page has them"
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("test", RUN)
def test_the_named_test_runs_the_command(test: str) -> None:
    text = (ROOT / "tests" / test).read_text(encoding="utf-8")
    for command in RUN[test]:
        words = [word.strip("[]") for word in shlex.split(command)]
        verbs = [word.partition("@")[0] for word in words[:3] if re.fullmatch(r"[a-z-]+(@[a-z]+)?", word)]
        for word in (*verbs[:2], *(word for word in words if word.startswith("--"))):
            assert re.search(rf"(?<![\w-]){word}(?![\w-])", text), f"{test} does not run {command}: {word}"


def bilora_options(words: list[str]) -> set[str]:
    """Return the options of a bilora command."""
    command: Any = typer.main.get_command(app)
    for word in words[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    return {
        "--help",
        *(option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)),
    }


def script_options(script: Path) -> set[str]:
    """Return the options of a Python script: those that it, its neighbours or its verb define."""
    text = script.read_text(encoding="utf-8")
    verb = re.search(r"from bilora\.cli\.(\w+) import main", text)
    files = [ROOT / "src/bilora/cli" / f"{verb[1]}.py"] if verb else [*script.parent.glob("*.py")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    named = {option for text in texts for option in re.findall(r"\"(--[\w-]+)\"", text)}
    typed = {f"--{name}" for text in texts for name in re.findall(r"(\w+): Annotated\[", text)}
    return {option.replace("_", "-") for option in named | typed}


def unknown_options(command: str) -> list[str]:
    """Return the options of a command that its program does not have."""
    words = [word.strip("[]") for word in command.split()]
    options = [word.partition("=")[0] for word in words if word.startswith("--") and len(word) > 2]
    if words[0] == "bilora":
        known = bilora_options(words)
    elif words[0] == "python" and len(words) > 1 and (ROOT / words[1]).is_file():
        known = script_options(ROOT / words[1])
    else:
        return []
    return [option for option in options if option not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    inline = [code for code in re.findall(r"`([^`\n]+)`", text) if re.match(r"(bilora|python) \S", code)]
    blocks = [line for line in block_commands(page) if program(line) == line.split()[0]]
    assert not {command: unknown for command in (*inline, *blocks) if (unknown := unknown_options(command))}
