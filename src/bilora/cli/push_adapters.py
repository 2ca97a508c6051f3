"""The command push-adapters."""

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
    """Publish the adapters if their bytes have a passing verdict, then make them the incumbents."""
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
    result = push(hub, files, verdicts)
    print(f"push-adapters: {'published' if result.changed else 'already published'} in {result.location}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if promote(results, workspace.baseline, workspace.history, created_utc=now):
        print(f"push-adapters: promoted; commit {workspace.baseline}, with which new adapters are compared")


def read_bundle_info(workspace: Workspace, repository: str | None) -> BundleInfo:
    """Return the model cards' data: from the base, params and the reports of data-split."""
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
    """Return the model card's data of one task; the source's licence is read from params, without its rows."""
    from bilora.bases.prompt import template_messages
    from bilora.data_reports import SplitReport
    from bilora.publishing.bundle_info import CardTask
    from bilora.sources.kinds.hub import HubDatasetSettings
    from bilora.storage import read_record, require_file

    task_params, task = workspace.task(name)
    report = read_record(require_file(workspace.drop_report("split", name), f"data-split@{name}"), SplitReport)
    licence = getattr(task_params.source, "licence", None)
    return CardTask(
        messages=template_messages(tokenizer, task.messages(task.make_prompt(task.example))),
        sampling=task_params.generation.sampling(seed=workspace.params.seed),
        licences=tuple(sorted(report.licences() | ({licence} if licence else set()))),
        dataset=task_params.source if isinstance(task_params.source, HubDatasetSettings) else None,
    )


def print_hub_fallback(workspace: Workspace, repository: str | None) -> None:
    """Report that a folder is used instead of the Hugging Face hub, because there is no token."""
    from bilora.external_services import HubRepositorySettings

    settings = workspace.params.hub
    if repository is None and isinstance(settings, HubRepositorySettings):
        print(f"HF_TOKEN is not set: {workspace.hub}/ is used instead of {settings.id}.")


def warn_of_withdrawn(workspace: Workspace, adapters: Mapping[str, Path]) -> None:
    """Warn about adapters that were trained on a rating withdrawn since; the user decides what to do."""
    from bilora.cli.withdrawals import withdrawn_sentence
    from bilora.feedback.withdrawals import read_withdrawals
    from bilora.storage import adapter_sha256
    from bilora.tracking.runs import trained_on_withdrawn

    published = {adapter_sha256(folder) for folder in adapters.values()}
    for adapter in trained_on_withdrawn(workspace.runs, read_withdrawals(workspace.outbox).ratings):
        if adapter.adapter_sha256 in published:
            print(f"push-adapters: warning: {withdrawn_sentence(adapter)}", file=sys.stderr)
