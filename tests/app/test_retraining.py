"""From ratings in a browser to a retrained adapter, its verdict, and a page that serves it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.checkouts import change_task, shell_in
from support.chromium import BROWSER

from bilora.storage import adapter_sha256

pytestmark = [pytest.mark.slow, *BROWSER]
CPU_S = 300
DOUBLE = "Double a number, please.\n\nSignature: def double(number):"
GREET = "Greet the person named.\n\nSignature: def greet(name):"


@pytest.fixture(scope="module")
def site(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose adapters give short answers: longer ones than `max_target_chars` are no training rows."""
    folder = tmp_path_factory.mktemp("site") / "checkout"
    shutil.copytree(measured, folder, symlinks=True)
    return folder


def rate(page: Any, prompt: str, thumb: str, edit: str = "") -> None:
    page.get_by_label("What should the code do?").fill(prompt)
    page.get_by_role("button", name="Ask", exact=True).click()
    turn = page.locator(".st-key-newest")
    turn.get_by_role("button", name="Rate", exact=True).wait_for()
    turn.get_by_role("radio", name=thumb).click()
    if edit:
        turn.get_by_text("Correct it, or say why").click()
        turn.get_by_label("How it should read").fill(edit)
    turn.get_by_text("may be stored in the project").click()
    turn.get_by_role("button", name="Rate", exact=True).click()
    turn.get_by_text("your rating is stored").wait_for()


def test_ratings_end_in_a_retrained_adapter_and_a_verdict(page: Any, site: Path) -> None:
    run = shell_in(site)

    def repro() -> list[str]:
        message = run("prlimit", f"--cpu={CPU_S}", "dvc", "repro", "evaluate").stdout
        return [line.split("'")[1] for line in message.splitlines() if line.startswith("Running stage")]

    def on(task: Any) -> None:
        task["split"] |= {"feedback": "mix", "preference": "kto"}
        kto = {"kind": "kto", "learning_rate": 1e-3, "steps": 4, "batch_size": 2, "min_rows": 2}
        task["training"]["phases"].append(kto)

    before = {name: adapter_sha256(site / "adapters" / name) for name in ("codegen", "docstring")}
    rate(
        page,
        DOUBLE,
        "Thumbs down",
        "def double(number):\n    return 2 * number",
    )
    rate(page, GREET, "Thumbs up")
    run("bilora", "feedback", "export")
    assert "1 SFT, 1 DPO, 2 KTO" in run("bilora", "feedback", "pairs").stdout

    change_task(site, "codegen", on)
    assert repro() == ["data-split@codegen", "data-split@docstring", "train@codegen", "evaluate@codegen"]
    after = {name: adapter_sha256(site / "adapters" / name) for name in before}
    assert after["docstring"] == before["docstring"] and after["codegen"] != before["codegen"]
    assert repro() == []

    records = [json.loads(path.read_text(encoding="utf-8")) for path in (site / "runs").glob("*/run.json")]
    (trained,) = [record for record in records if record["adapter_sha256"] == after["codegen"]]
    assert (trained["metrics"]["feedback_rows"], trained["metrics"]["kto_rows"]) == (1, 2)
    assert [phase["kind"] for phase in trained["params"]["task"]["training"]["phases"]] == ["sft", "kto"]
    assert len(trained["ratings"]) == 2
    report = json.loads((site / "data" / "reports" / "split" / "codegen.json").read_text(encoding="utf-8"))
    assert report["feedback"] == {"samples": 1, "preferences": 2, "rules": []}

    run("prlimit", f"--cpu={CPU_S}", "bilora", "benchmark", check=False)
    results = json.loads((site / "benchmarking" / "results.json").read_text(encoding="utf-8"))
    verdict = results["tasks"]["codegen"]["verdict"]
    assert verdict["adapter_sha256"] == after["codegen"] and verdict["n"] == 24

    page.get_by_label("What should the code do?").fill("Once more.")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text(f"adapter {after['codegen'][:12]}").wait_for()
