"""The process that judges: it alone knows the tests, and keeps them away from the code under test."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from bilora.sandbox.confinement import Limits, guard
from bilora.sandbox.forks import Zygotes
from bilora.sandbox.trial import Trial
from bilora.sandbox.wire import Channel, ChannelClosed

if TYPE_CHECKING:
    from bilora.sandbox.messages import Judgement, ProgramFields


def run_referee(launcher: Channel, limits: Limits) -> None:
    """Send how candidates are confined, then judge the programs that the launcher sends until it hangs up."""
    guard()
    zygotes = Zygotes(limits)
    launcher.send(zygotes.layers)
    with contextlib.suppress(ChannelClosed):
        while True:
            candidate = zygotes.fork("candidate")
            program: ProgramFields = json.loads(launcher.receive())
            trial = Trial(zygotes, candidate, limits, program)
            interruption = trial.run()
            trial.close(interruption)
            judgement: Judgement = {"outcome": trial.outcome(), "starved": trial.starved}
            launcher.send(judgement)
