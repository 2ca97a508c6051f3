"""Frames between the sandbox's processes: four bytes of length, then JSON."""

from __future__ import annotations

import json
import socket
import struct
import time

MAX_BYTES = 4_000_000
"""The longest frame that is accepted from a candidate."""

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group, as unix(7) passes them with a message."""
_CREDENTIALS_SPACE = socket.CMSG_SPACE(_CREDENTIALS.size)
_SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", None)  # Linux has them


class ChannelClosed(Exception):
    """The other end hung up."""


class TooLarge(Exception):
    """The other end announced a longer frame than is accepted."""


class Channel:
    """One end of a stream socket. Deadlines are readings of `time.monotonic`."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: object, deadline: float | None = None) -> None:
        """Send one message.

        Raises:
            ChannelClosed: the other end hung up.
            TimeoutError: the deadline passed.
        """
        self.forward(json.dumps(message).encode(), deadline)

    def forward(self, data: bytes, deadline: float | None = None) -> None:
        """Send one message that is already JSON.

        Raises:
            ChannelClosed: the other end hung up.
            TimeoutError: the deadline passed.
        """
        self._wait_until(deadline)
        try:
            self._end.sendall(len(data).to_bytes(4, "big") + data)
        except OSError as error:
            raise _translated(error) from None

    def receive(self, deadline: float | None = None, limit: int = 2**32) -> bytes:
        """Receive one message, still as JSON: the caller decides where it is safe to parse it.

        Raises:
            ChannelClosed: the other end hung up.
            TooLarge: the message is longer than `limit` bytes.
            TimeoutError: the deadline passed.
        """
        length = int.from_bytes(self._read(4, deadline), "big")
        if length > limit:
            raise TooLarge
        return self._read(length, deadline)

    def hand_over(self, descriptor: int) -> None:
        """Give the other end a copy of an open descriptor.

        Raises:
            ChannelClosed: the other end hung up.
        """
        try:
            socket.send_fds(self._end, [b"d"], [descriptor])
        except OSError as error:
            raise _translated(error) from None

    def take_over(self) -> int:
        """Wait for a descriptor and return it.

        Raises:
            ChannelClosed: the other end hung up.
        """
        _, descriptors, _, _ = socket.recv_fds(self._end, 1, 1)
        if not descriptors:
            raise ChannelClosed
        return descriptors[0]

    def receive_first(self, deadline: float | None = None) -> int | None:
        """Receive the other end's first message and return its sender's process id in this process's namespace.

        None if the system does not pass it. `pass_credentials` has to be called before the message is sent.

        Raises:
            ChannelClosed: the other end hung up.
            TimeoutError: the deadline passed.
        """
        self._wait_until(deadline)
        try:
            head, extra, _, _ = self._end.recvmsg(4, _CREDENTIALS_SPACE)
        except OSError as error:
            raise _translated(error) from None
        head += self._read(4 - len(head), deadline) if head else b""
        if not head:
            raise ChannelClosed
        self._read(int.from_bytes(head, "big"), deadline)
        pids = [_CREDENTIALS.unpack(data)[0] for _, kind, data in extra if kind == _SCM_CREDENTIALS]
        return pids[0] if pids and pids[0] else None

    def pass_credentials(self) -> None:
        """Have the system pass the sender's process id with each message received here, if it can."""
        if _SCM_CREDENTIALS is not None:
            self._end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _read(self, count: int, deadline: float | None) -> bytes:
        data = bytearray()
        while len(data) < count:
            self._wait_until(deadline)
            try:
                piece = self._end.recv(min(count - len(data), 1 << 16))
            except OSError as error:
                raise _translated(error) from None
            if not piece:
                raise ChannelClosed
            data += piece
        return bytes(data)

    def _wait_until(self, deadline: float | None) -> None:
        if deadline is None:
            if self._end.gettimeout() is not None:  # setting it is a system call that candidates lack
                self._end.settimeout(None)
            return
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._end.settimeout(remaining)


def _translated(error: OSError) -> Exception:
    return TimeoutError() if isinstance(error, TimeoutError) else ChannelClosed()
