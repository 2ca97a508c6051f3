"""The verb rollback."""

from __future__ import annotations

from typing import Annotated

import typer

To = Annotated[
    str | None,
    typer.Option("--to", metavar="REV", help="Start of a commit or digest. [default: the version before this one]"),
]


def rollback(to: To = None) -> None:
    """Publish the bytes of an earlier version again; the baseline stays, so the bar is not lowered."""
    from bilora.cli import hubs, wiring
    from bilora.publishing.rollback import rollback as run

    params = wiring.load_params()
    hub, repository = hubs.hub(params)
    hubs.say_where(params, repository)
    done = run(hub, to)
    print(f"rollback: {'served again' if done.changed else 'served already'} in {done.location}")
