"""The verb push-adapters."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path


def push_adapters() -> None:
    """Publish the adapters if the last verdict covers exactly these bytes, then promote them to baseline."""
    from bilora.cli import hubs, wiring
    from bilora.cli.benchmark import evaluation_rows, judge_rows
    from bilora.errors import NotPromotable
    from bilora.evaluation.results import read_results
    from bilora.publishing.bundle import build_bundle
    from bilora.publishing.promote import promote
    from bilora.publishing.push import push
    from bilora.records import Verdict
    from bilora.sources.kinds.hub import HubSource

    params = wiring.load_params()
    results = read_results(wiring.need(wiring.RESULTS, "benchmark"))
    again = judge_rows(params, evaluation_rows(params), keys={})
    for name, task in results["tasks"].items():
        if task["entry"] != again["tasks"].get(name, {}).get("entry"):
            raise NotPromotable(
                f"Nothing was published. {name}: {wiring.RESULTS} is not what {wiring.EVALUATION}/{name}.jsonl gives; "
                "run `dvc repro benchmark`."
            )
        # What is written may have been edited; what the rows say now decides as well.
        if task["verdict"] and again["tasks"][name]["verdict"]["outcome"] != "pass":
            task["verdict"] = again["tasks"][name]["verdict"]
    verdicts = {
        name: Verdict.model_validate(task["verdict"]) for name, task in results["tasks"].items() if task["verdict"]
    }
    adapters = {name: wiring.adapter(params, name) for name in params.tasks}
    hub, repository = hubs.hub(params)
    files = build_bundle(
        adapters,
        verdicts,
        results,
        base_id=params.base.id,
        base_revision=params.base.revision,
        licence="mit",
        datasets={name: one.source for name, one in params.tasks.items() if isinstance(one.source, HubSource)},
        repository=repository,
        base=hubs.carried_base(params),
    )
    _warn_of_withdrawn(adapters)
    hubs.say_where(params, repository)
    done = push(hub, files, verdicts)
    print(f"push-adapters: {'published' if done.changed else 'already published'} in {done.location}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if promote(results, wiring.BASELINE, wiring.HISTORY, created_utc=now):
        print(f"push-adapters: promoted to {wiring.BASELINE}; commit it to make it the bar for the next adapter")


def _warn_of_withdrawn(adapters: Mapping[str, Path]) -> None:
    """Warn of the adapters that were trained on a rating since withdrawn; it is for the publisher to decide."""
    from bilora.cli.withdrawals import sentence, trained_on, withdrawals
    from bilora.storage import adapter_sha256

    published = {adapter_sha256(folder) for folder in adapters.values()}
    for found in trained_on(withdrawals().ratings):
        if found.adapter_sha256 in published:
            print(f"push-adapters: warning: {sentence(found)}", file=sys.stderr)
