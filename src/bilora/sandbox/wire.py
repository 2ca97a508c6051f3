"""Messages between the sandbox's processes: frames of a four-byte length and JSON."""

from __future__ import annotations

import json
import socket
import struct
import time

MAX_BYTES = 4_000_000
"""Maximum length of a frame from a candidate."""

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group id, as unix(7) passes them with a message."""
_CREDENTIALS_SPACE = socket.CMSG_SPACE(_CREDENTIALS.size)
_SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", None)  # only on Linux


class ChannelClosed(Exception):
    """The other end closed the channel."""


class TooLarge(Exception):
    """The other end announced a frame longer than the limit."""


class Channel:
    """One end of a stream socket. Deadlines are times of `time.monotonic`."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: object, deadline: float | None = None) -> None:
        """Send one message.

        Raises:
            ChannelClosed: the other end closed the channel.
            TimeoutError: the deadline passed.
        """
        self.forward(json.dumps(message).encode(), deadline)

    def forward(self, data: bytes, deadline: float | None = None) -> None:
        """Send one message that is already encoded.

        Raises:
            ChannelClosed: the other end closed the channel.
            TimeoutError: the deadline passed.
        """
        self._wait_until(deadline)
        try:
            self._end.sendall(len(data).to_bytes(4, "big") + data)
        except OSError as error:
            raise _channel_error(error) from None

    def receive(self, deadline: float | None = None, limit: int = 2**32) -> bytes:
        """Receive one message without parsing it: the caller decides where that is safe.

        Raises:
            ChannelClosed: the other end closed the channel.
            TooLarge: the message is longer than `limit` bytes.
            TimeoutError: the deadline passed.
        """
        length = int.from_bytes(self._read(4, deadline), "big")
        if length > limit:
            raise TooLarge
        return self._read(length, deadline)

    def send_descriptor(self, descriptor: int) -> None:
        """Send the other end a copy of an open descriptor.

        Raises:
            ChannelClosed: the other end closed the channel.
        """
        try:
            socket.send_fds(self._end, [b"d"], [descriptor])
        except OSError as error:
            raise _channel_error(error) from None

    def receive_descriptor(self) -> int:
        """Wait for a descriptor and return it.

        Raises:
            ChannelClosed: the other end closed the channel.
        """
        _, descriptors, _, _ = socket.recv_fds(self._end, 1, 1)
        if not descriptors:
            raise ChannelClosed
        return descriptors[0]

    def receive_with_pid(self, deadline: float | None = None) -> int | None:
        """Receive one message and return its sender's pid in this namespace, or None if the system does not pass it.

        Call `enable_credentials` before the message is sent.

        Raises:
            ChannelClosed: the other end closed the channel.
            TimeoutError: the deadline passed.
        """
        self._wait_until(deadline)
        try:
            head, extra, _, _ = self._end.recvmsg(4, _CREDENTIALS_SPACE)
        except OSError as error:
            raise _channel_error(error) from None
        head += self._read(4 - len(head), deadline) if head else b""
        if not head:
            raise ChannelClosed
        self._read(int.from_bytes(head, "big"), deadline)
        pids = [_CREDENTIALS.unpack(data)[0] for _, kind, data in extra if kind == _SCM_CREDENTIALS]
        return pids[0] if pids and pids[0] else None

    def enable_credentials(self) -> None:
        """Make the system pass the sender's pid with each message, where it supports that."""
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
                chunk = self._end.recv(min(count - len(data), 1 << 16))
            except OSError as error:
                raise _channel_error(error) from None
            if not chunk:
                raise ChannelClosed
            data += chunk
        return bytes(data)

    def _wait_until(self, deadline: float | None) -> None:
        if deadline is None:
            if self._end.gettimeout() is not None:  # setting it needs a system call that candidates may not make
                self._end.settimeout(None)
            return
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._end.settimeout(remaining)


def _channel_error(error: OSError) -> Exception:
    return TimeoutError() if isinstance(error, TimeoutError) else ChannelClosed()
