"""The referee's handles of its zygotes and of the processes that they fork."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.sandbox.confinement import Layers, Limits
from bilora.sandbox.spawning import spawn
from bilora.sandbox.wire import Channel, ChannelClosed

if TYPE_CHECKING:
    from bilora.sandbox.messages import ExitReport, LayerReport
    from bilora.sandbox.zygote import ForkKind


class Zygotes:
    """One zygote per kind of process, each started on first use."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._channels: dict[ForkKind, Channel] = {}
        self.layers = self._start("candidate")
        self.level = str(Layers(tuple(self.layers["on"]), self.layers["off"]))

    def fork(self, kind: ForkKind) -> ForkedProcess:
        """Fork a process. Kill it before forking the next one of its kind.

        Raises:
            ChannelClosed: the zygote has exited, or its layers differ from the first zygote's.
        """
        if kind not in self._channels and self._start(kind) != self.layers:
            raise ChannelClosed
        zygote = self._channels[kind]
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        channel.enable_credentials()
        with theirs:
            zygote.send_descriptor(theirs.fileno())
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

    def kill(self) -> ExitReport:
        """Kill the process and return how it exited."""
        self.zygote.send("end")
        report: ExitReport = json.loads(self.zygote.receive())
        self.channel.close()
        return report
