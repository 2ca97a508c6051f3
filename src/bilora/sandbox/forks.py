"""The zygotes, and the processes that the referee has them fork."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.sandbox.confinement import Layers, Limits
from bilora.sandbox.spawning import spawn
from bilora.sandbox.wire import Channel, ChannelClosed

if TYPE_CHECKING:
    from bilora.sandbox.messages import Ending, LayerReport
    from bilora.sandbox.zygote import ForkKind


class Zygotes:
    """One zygote per kind of process, each started when it is first needed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._channels: dict[ForkKind, Channel] = {}
        self.layers = self._start("candidate")
        self.level = str(Layers(tuple(self.layers["on"]), self.layers["off"]))

    def fork(self, kind: ForkKind) -> ForkedProcess:
        """Fork a process; it has to be ended before the next one of its kind.

        Raises:
            ChannelClosed: the zygote has ended, or is confined less well than the first one was.
        """
        if kind not in self._channels and self._start(kind) != self.layers:
            raise ChannelClosed
        zygote = self._channels[kind]
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        channel.pass_credentials()
        with theirs:
            zygote.hand_over(theirs.fileno())
        return ForkedProcess(kind, zygote, channel)

    def _start(self, kind: ForkKind) -> LayerReport:
        _, self._channels[kind] = spawn("zygote", self._limits, kind, session=False)
        layers: LayerReport = json.loads(self._channels[kind].receive())
        return layers


@dataclass(frozen=True)
class ForkedProcess:
    """One forked process, and its zygote's channel."""

    kind: ForkKind
    zygote: Channel
    channel: Channel

    def end(self) -> Ending:
        """Kill the process and return how it ended."""
        self.zygote.send("end")
        ending: Ending = json.loads(self.zygote.receive())
        self.channel.close()
        return ending
