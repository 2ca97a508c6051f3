"""The process that judges programs. It sends a test to the program's process only if it cannot run elsewhere."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from bilora.sandbox.confinement import Limits, protect_process
from bilora.sandbox.forks import Zygotes
from bilora.sandbox.trial import Trial
from bilora.sandbox.wire import Channel, ChannelClosed

if TYPE_CHECKING:
    from bilora.sandbox.messages import ProgramFields, TrialReport


def run_referee(launcher: Channel, limits: Limits) -> None:
    """Send the active layers, then judge the programs that the launcher sends until it closes the channel."""
    protect_process()
    zygotes = Zygotes(limits)
    launcher.send(zygotes.layers)
    with contextlib.suppress(ChannelClosed):
        while True:
            candidate = zygotes.fork("candidate")
            program: ProgramFields = json.loads(launcher.receive())
            trial = Trial(zygotes, candidate, limits, program)
            interruption = trial.run()
            trial.close(interruption)
            report: TrialReport = {"outcome": trial.outcome(), "starved": trial.starved}
            launcher.send(report)
