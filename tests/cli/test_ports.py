"""A port is bound at once on every address of its host, or the message says why not."""

from __future__ import annotations

import errno
import socket

import pytest
from support.ports import free_port

from bilora.cli import ports
from bilora.errors import BadData, Busy, Infrastructure


def test_a_bound_port_is_not_listened_on_yet() -> None:
    port = free_port()
    (bound,) = ports.bind("127.0.0.1", port)
    with bound:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=2)
        bound.listen()
        socket.create_connection(("127.0.0.1", port), timeout=2).close()


def test_a_name_is_bound_on_every_address_that_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    output = [(*stream, (host, port)) for host in ("127.0.0.1", "127.0.0.2", "192.0.2.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: output)
    bound = ports.bind("many.example", port)
    assert [listener.getsockname()[0] for listener in bound] == ["127.0.0.1", "127.0.0.2"]
    for listener in bound:
        listener.close()


def test_a_port_that_is_used_on_one_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        output = [(*stream, (host, port)) for host in ("127.0.0.1", "127.0.0.2")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: output)
        with pytest.raises(Busy, match="is used by another program"):
            ports.bind("many.example", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no host", "x" * 300])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(BadData, match="is not an address"):
        ports.bind(host, free_port())


def test_a_privileged_port_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(ports, "_bind_address", refuse)
    with pytest.raises(Infrastructure, match="from 1024 on"):
        ports.bind("127.0.0.1", 80)
