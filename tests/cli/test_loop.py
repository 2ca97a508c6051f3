"""Every documented command, in a copy of the workspace after one pipeline run with the smoke profile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.checkouts import ROOT, Shell, shell_in, smoke_checkout
from support.guide_examples import guide_block, markdown_blocks
from support.tiny_bases import tiny_base

from bilora.storage import adapter_sha256, sha256_file

pytestmark = pytest.mark.slow


@pytest.fixture
def run(measured: Path) -> Shell:
    return shell_in(measured)


@pytest.fixture
def params(measured: Path) -> Iterator[Path]:
    """The copy's params.yaml, to be changed by one test and put back after it."""
    path = measured / "params.yaml"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


def test_the_loop_leaves_a_verdict_bound_to_the_adapters(measured: Path) -> None:
    results = json.loads((measured / "benchmarking" / "results.json").read_text(encoding="utf-8"))
    assert set(results["tasks"]) == {"codegen", "docstring"}
    for name, task in results["tasks"].items():
        assert task["verdict"]["adapter_sha256"] == adapter_sha256(measured / "adapters" / name)
        assert task["verdict"]["n"] == 24 and task["verdict"]["unscored"] == 0


def test_the_run_record_describes_the_training(measured: Path) -> None:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (measured / "runs").glob("*/run.json")]
    assert {record["task"] for record in records} == {"codegen", "docstring"}
    for record in records:
        assert record["adapter_sha256"] == adapter_sha256(measured / "adapters" / record["task"])
        assert record["lock_sha256"] == sha256_file(measured / "requirements.txt")
        assert len(record["commit"]) == 40 and record["tokens"] > 0 and record["peak_memory_bytes"] > 2**26


def test_training_metrics_cover_every_task(measured: Path) -> None:
    metrics = json.loads((measured / "training_metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"codegen", "docstring"} and all(task["steps"] == 8 for task in metrics.values())


def test_an_adapter_that_did_not_pass_is_not_pushed(run: Shell, measured: Path) -> None:
    refused = run("bilora", "push-adapters", check=False)
    assert refused.returncode == 5 and "Nothing was published" in refused.stderr
    assert not (measured / "hub").exists()


def test_repro_of_push_stops_at_the_gate(run: Shell, measured: Path) -> None:
    stopped = run("dvc", "repro", "push-adapters", check=False)
    assert stopped.returncode != 0 and "benchmark" in stopped.stderr
    assert not (measured / "hub").exists()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("dvc", "dag"), "push-adapters"),
        (("dvc", "metrics", "show"), "training_metrics.json"),
        (("dvc", "metrics", "diff"), "metrics/benchmark.json"),
        (("bilora", "plan"), "last run here"),
        (("bilora", "profile", "list"), "* smoke"),
        (("bilora", "report"), "Held-out test split"),
        (("bilora", "doctor"), "sandbox"),
    ],
    ids=" ".join,
)
def test_a_command_answers(run: Shell, command: tuple[str, ...], expected: str) -> None:
    assert expected in run(*command).stdout


def test_training_all_together_gives_the_bytes_of_each_alone(run: Shell, measured: Path) -> None:
    before = {task: adapter_sha256(measured / "adapters" / task) for task in ("codegen", "docstring")}
    message = run("bilora", "train", "--all").stdout
    assert {task: adapter_sha256(measured / "adapters" / task) for task in before} == before
    assert all(f"train {task}: planned are" in message for task in before)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((measured / "runs").glob("*/run.json"))]
    assert all(record["planned_s"] > 0 and record["planned_memory_bytes"] > 2**28 for record in records[-2:])
    run("dvc", "commit", "--force", "train")  # the stages' metrics have other durations now


def test_a_sweep_is_compared_on_validation_and_shown_in_the_report(run: Shell, measured: Path) -> None:
    message = run(
        "bilora", "sweep", "docstring", "--rate", "1e-3", "--rate", "1e-2", "--rank", "2", "--steps", "2"
    ).stdout
    assert "2 variants" in message and "  training.phases[0].learning_rate: " in message
    sweep = json.loads((measured / "sweeps" / "docstring.json").read_text(encoding="utf-8"))
    assert [result["variant"]["learning_rate"] for result in sweep["results"]] == [1e-3, 1e-2]
    assert not (measured / "checkpoints" / "sweep-docstring").exists()
    run("bilora", "report")
    assert "<h3>Sweep</h3>" in (measured / "report.html").read_text(encoding="utf-8")
    refused = run("bilora", "sweep", "docstring", "--layers", "head", check=False)
    assert refused.returncode == 2 and "--layers head: choose from attention, mlp, all" in refused.stderr


def test_params_diff_shows_an_edit(run: Shell, params: Path) -> None:
    params.write_text(params.read_text(encoding="utf-8").replace("seed: 42", "seed: 43"), encoding="utf-8")
    assert "seed" in run("dvc", "params", "diff").stdout


def test_plots_show_draws_the_loss(run: Shell, measured: Path) -> None:
    run("dvc", "plots", "show")
    drawn = (measured / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    assert all(f"plots_train_{task}_json" in drawn for task in ("codegen", "docstring")) and '"loss"' in drawn


def test_a_second_repro_repeats_no_expensive_stage(run: Shell) -> None:
    again = run("dvc", "repro", "evaluate")
    assert "Running stage" not in again.stdout


def test_the_prompt_function_makes_train_and_evaluate_stale_and_a_base_s_card_nothing(
    run: Shell, measured: Path
) -> None:
    def stale_with_an_edit_of(*paths: str) -> set[str]:
        files = {measured / path: (measured / path).read_bytes() for path in paths}
        try:
            for path, content in files.items():
                path.write_bytes(content + b"\n")
            return set(json.loads(run("dvc", "status", "--json").stdout))
        finally:
            for path, content in files.items():
                path.write_bytes(content)

    stale = stale_with_an_edit_of()
    prompt = stale_with_an_edit_of("src/bilora/bases/prompt.py")
    assert prompt - stale == {f"{stage}@{task}" for stage in ("train", "evaluate") for task in ("codegen", "docstring")}
    assert stale_with_an_edit_of("models/smoke/README.md") == stale


def test_one_task_s_parameter_retrains_only_that_task(run: Shell, params: Path) -> None:
    document = yaml.safe_load(params.read_text(encoding="utf-8"))
    document["tasks"]["docstring"]["training"]["phases"][0]["steps"] = 7
    params.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    planned = run("dvc", "repro", "--dry", "train").stdout
    assert [line for line in planned.splitlines() if line.startswith("> ")] == ["> bilora train docstring"]


def test_compare_metrics_says_what_it_cannot_compare(run: Shell) -> None:
    message = run(
        "python",
        "scripts/compare_metrics.py",
        "benchmarking/results.json",
        "benchmarking/baseline.json",
        check=False,
    )
    assert message.returncode == 12 and "only benchmarking/results.json contains this task" in message.stdout


def test_compare_metrics_finds_no_difference_between_equal_runs(run: Shell) -> None:
    results = "benchmarking/results.json"
    message = run("python", "scripts/compare_metrics.py", results, results, check=False)
    assert message.stdout.count(" +0.0 points, 95 %") == 2 and "pass          docstring" in message.stdout
    # 24 answers that all fail do not show that two pass rates lie within 5 points of each other.
    assert "inconclusive  codegen" in message.stdout and message.returncode == 11


def test_a_short_evaluation_never_passes(run: Shell, measured: Path) -> None:
    before = (measured / "benchmarking" / "results.json").read_bytes()
    message = run("python", "benchmarking/evaluate.py", "--max-samples", "2", "--verbose", check=False)
    (measured / "benchmarking" / "results.json").write_bytes(before)
    assert message.returncode == 11 and "2 scored samples; the gate requires 20" in message.stdout
    assert "--- docstring" in message.stdout


def test_an_adapter_of_another_base_is_refused(run: Shell, params: Path, tmp_path: Path) -> None:
    other = tiny_base(tmp_path / "other", "phi3")
    params.write_text(params.read_text(encoding="utf-8").replace("models/smoke", str(other)), encoding="utf-8")
    refused = run("bilora", "evaluate", "codegen", check=False)
    assert refused.returncode == 2 and "was trained on models/smoke" in refused.stderr


def test_a_damaged_adapter_is_refused(run: Shell, measured: Path) -> None:
    weights = measured / "adapters" / "codegen" / "adapter_model.safetensors"
    before = weights.read_bytes()
    weights.unlink()  # a link into DVC's cache must not be written through
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    refused = run("bilora", "evaluate", "codegen", check=False)
    weights.write_bytes(before)
    assert refused.returncode == 2 and "does not match its manifest" in refused.stderr


@pytest.mark.parametrize(
    ("command", "code", "expected"),
    [
        (("bilora", "train", "poetry"), 2, "There is no task 'poetry'"),
        (("bilora", "profile", "use", "huge"), 2, "there is no such profile"),
        (("bilora", "compare", "absent.json", "absent.json"), 2, "absent.json: the file does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_is_one_sentence(run: Shell, command: tuple[str, ...], code: int, expected: str) -> None:
    refused = run(*command, check=False)
    assert refused.returncode == code and expected in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_missing_stage_is_named(run: Shell, measured: Path) -> None:
    moved = measured / "data" / "samples" / "codegen.jsonl"
    shutil.move(moved, moved.with_suffix(".away"))
    refused = run("bilora", "data-split", "codegen", check=False)
    shutil.move(moved.with_suffix(".away"), moved)
    assert refused.returncode == 3 and "Run `dvc repro data-process@codegen` first" in refused.stderr


def test_a_third_task_is_one_file_and_one_entry(tmp_path: Path) -> None:
    folder = smoke_checkout(tmp_path / "checkout")
    module = folder / "src" / "bilora" / "tasks" / "naming.py"
    module.write_text(guide_block("add-a-task", "python"), encoding="utf-8")
    document = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    entry = yaml.safe_load(guide_block("add-a-task", "yaml"))["tasks"]["naming"]
    entry["adapter"]["target_modules"] = ["gate_up_proj", "down_proj"]  # as the smoke base names them
    entry["training"]["evaluate_samples"] = 2
    entry["training"]["phases"][0].update(steps=4, evaluate_every=2, batch_size=2)
    entry["split"].update(train=60, validation=6, test=24)
    document["tasks"]["naming"] = entry
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    run = shell_in(folder)
    run("dvc", "repro", "evaluate@naming")
    rows = [
        json.loads(line) for line in (folder / "evaluation" / "naming.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert {row["completion"]["system"] for row in rows} == {"base", "naming", "floor:constant"}
    assert len(rows) == 3 * 24 and not (folder / "adapters" / "codegen").exists()


def test_the_examples_of_the_library_page_run(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "workspace"
    shutil.copytree(measured, folder, symlinks=True)
    blocks = [block.text for block in markdown_blocks(ROOT / "docs" / "library.md") if block.language == "python"]
    assert len(blocks) == 5
    publish = (
        "from bilora.cli.push_adapters import read_bundle_info\n"
        "from bilora.publishing.bundle import build_bundle\n"
        "from bilora.publishing.push import publish_unchecked\n"
        "from bilora.results import read_results\n"
        "import bilora\n"
        "workspace = bilora.Workspace()\n"
        "adapters = {task: workspace.checked_adapter(task) for task in workspace.params.tasks}\n"
        "results = read_results(workspace.results)\n"
        "files = build_bundle(adapters, {}, results, read_bundle_info(workspace, None))\n"
        "publish_unchecked(workspace.hub_to_publish()[0], files, message='test')\n"
    )
    (folder / "examples.py").write_text("\n".join([publish, *blocks]), encoding="utf-8")
    output = shell_in(folder)("python", "examples.py").stdout
    assert "['codegen', 'docstring']" in output and "failed (True, False)" in output
    assert f"{Path('adapters') / 'codegen'} " in output
