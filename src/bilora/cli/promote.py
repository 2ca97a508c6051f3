"""The command promote."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path


def promote() -> None:
    """Make the published adapters the incumbents, if a push was interrupted before it did."""
    from bilora.errors import NotPromotable
    from bilora.publishing.promote import promote as run
    from bilora.publishing.push import published_adapters
    from bilora.results import read_results
    from bilora.storage import require_file
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    results = read_results(require_file(workspace.results, "benchmark"))
    hub, _ = workspace.hub_to_publish()
    published = published_adapters(hub)
    for name, task in results.tasks.items():
        if task.entry.adapter_sha256 != published.get(name):
            raise NotPromotable(f"{name}: the published adapter was not measured; run `bilora push-adapters`.")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    changed = run(results, workspace.baseline, workspace.history, created_utc=now)
    print(f"promote: {f'{workspace.baseline} updated; commit it' if changed else 'they are the incumbents already'}")
