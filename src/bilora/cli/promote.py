"""The verb promote."""

from __future__ import annotations

from datetime import UTC, datetime


def promote() -> None:
    """Make the published adapters the bar for the next ones, where a push was cut off before it did."""
    from bilora.cli import hubs, wiring
    from bilora.errors import NotPromotable
    from bilora.evaluation.results import read_results
    from bilora.publishing.promote import promote as run
    from bilora.publishing.push import served

    results = read_results(wiring.need(wiring.RESULTS, "benchmark"))
    hub, _ = hubs.hub(wiring.load_params())
    there = served(hub)
    for name, task in results["tasks"].items():
        if task["entry"]["adapter_sha256"] != there.get(name):
            raise NotPromotable(f"{name}: what is published is not what was measured; run `bilora push-adapters`.")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    moved = run(results, wiring.BASELINE, wiring.HISTORY, created_utc=now)
    print(f"promote: {f'{wiring.BASELINE} moved; commit it' if moved else 'the baseline says so already'}")
