"""The verb push-adapters."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilora.bases.tokenizer import Tokenizer
    from bilora.publishing.bundle_info import BundleInfo, CardTask
    from bilora.workspace import Workspace


def push_adapters() -> None:
    """Publish the adapters if the last verdict covers exactly these bytes, then promote them to baseline."""
    from bilora.cli.benchmark import evaluation_rows, gate_evaluation
    from bilora.publishing.bundle import build_bundle
    from bilora.publishing.promote import promote
    from bilora.publishing.push import push, verified_results
    from bilora.results import read_results
    from bilora.storage import require_file
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    results = read_results(require_file(workspace.results, "benchmark"))
    results = verified_results(results, gate_evaluation(workspace, evaluation_rows(workspace), keys={}))
    verdicts = {name: task.verdict for name, task in results.tasks.items() if task.verdict}
    adapters = {name: workspace.checked_adapter(name) for name in workspace.params.tasks}
    hub, repository = workspace.hub_to_publish()
    files = build_bundle(adapters, verdicts, results, read_bundle_info(workspace, repository))
    warn_of_withdrawn(workspace, adapters)
    print_hub_fallback(workspace, repository)
    done = push(hub, files, verdicts)
    print(f"push-adapters: {'published' if done.changed else 'already published'} in {done.location}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if promote(results, workspace.baseline, workspace.history, created_utc=now):
        print(f"push-adapters: promoted to {workspace.baseline}; commit it to make it the bar for the next adapter")


def read_bundle_info(workspace: Workspace, repository: str | None) -> BundleInfo:
    """Gather what the cards say from the base, from params, and from what data-split reported."""
    from bilora.bases.special_tokens import stop_ids
    from bilora.bases.tokenizer_files import tokenizer_files
    from bilora.publishing.bundle_info import BundleInfo

    base = workspace.base()
    tokenizer = base.tokenizer()
    return BundleInfo(
        base=base,
        licence=base.licence(),
        tokenizer_files=tokenizer_files(tokenizer),
        stop_ids=stop_ids(tokenizer, base.generation_config()),
        pad_id=tokenizer.pad_token_id,
        tasks={name: _card_task(workspace, name, tokenizer) for name in workspace.params.tasks},
        repository=repository,
    )


def _card_task(workspace: Workspace, name: str, tokenizer: Tokenizer) -> CardTask:
    """Return what the cards say of one task; the licence that its source states is read from params."""
    from bilora.bases.prompt import template_messages
    from bilora.data_reports import SplitReport
    from bilora.publishing.bundle_info import CardTask
    from bilora.sources.kinds.hub import HubDatasetSettings
    from bilora.storage import read_record, require_file

    chosen, task = workspace.task(name)
    report = read_record(require_file(workspace.drop_report("split", name), f"data-split@{name}"), SplitReport)
    stated = getattr(chosen.source, "licence", None)
    return CardTask(
        messages=template_messages(tokenizer, task.messages(task.make_prompt(task.example))),
        sampling=chosen.generation.sampling(seed=workspace.params.seed),
        licences=tuple(sorted(report.licences() | ({stated} if stated else set()))),
        dataset=chosen.source if isinstance(chosen.source, HubDatasetSettings) else None,
    )


def print_hub_fallback(workspace: Workspace, repository: str | None) -> None:
    """Report that what params mean for the Hugging Face hub goes into a folder, for want of a token."""
    from bilora.external_services import HubRepositorySettings

    chosen = workspace.params.hub
    if repository is None and isinstance(chosen, HubRepositorySettings):
        print(f"HF_TOKEN is not set: {workspace.hub}/ is used in place of {chosen.id}.")


def warn_of_withdrawn(workspace: Workspace, adapters: Mapping[str, Path]) -> None:
    """Warn of the adapters that were trained on a rating since withdrawn; it is for the publisher to decide."""
    from bilora.cli.withdrawals import withdrawn_sentence
    from bilora.feedback.withdrawals import read_withdrawals
    from bilora.storage import adapter_sha256
    from bilora.tracking.runs import trained_on_withdrawn

    published = {adapter_sha256(folder) for folder in adapters.values()}
    for found in trained_on_withdrawn(workspace.runs, read_withdrawals(workspace.outbox).ratings):
        if found.adapter_sha256 in published:
            print(f"push-adapters: warning: {withdrawn_sentence(found)}", file=sys.stderr)
