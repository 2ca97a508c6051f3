"""Explanations of failed connections."""

from __future__ import annotations

import socket
import ssl
import sys
from importlib import metadata

import httpx2
import pytest

from bilora.network import connection_fault, http_library, uses_proxy


def caused(error: Exception, *causes: Exception) -> Exception:
    for current, cause in zip((error, *causes), causes, strict=False):
        current.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx2.ReadTimeout("x"), "the server did not answer in time"),
        (caused(httpx2.ConnectError("x"), TimeoutError()), "the server did not answer in time"),
        (httpx2.ProxyError("x"), "the proxy in HTTP_PROXY"),
        (httpx2.UnsupportedProtocol("x"), "does not begin with http"),
        (httpx2.LocalProtocolError("x"), "the request cannot be sent"),
        (httpx2.RemoteProtocolError("x"), "the connection was lost"),
        (httpx2.TooManyRedirects("x"), "redirects without end"),
        (caused(httpx2.ReadError("x"), ConnectionResetError()), "the connection was lost"),
        (caused(RuntimeError("x"), httpx2.ConnectError("x"), ConnectionRefusedError()), "no server listens there"),
        (httpx2.ConnectError("x"), "the connection failed"),
    ],
)
def test_a_fault_is_explained_by_its_first_cause(error: Exception, words: str) -> None:
    fault = connection_fault(error)
    assert fault is not None and words in fault and "Error" not in fault


def test_an_untrusted_certificate_is_reported_with_its_fault() -> None:
    fault = ssl.SSLCertVerificationError(1, "x")
    fault.verify_message = "self-signed certificate"
    output = "the server's certificate is not trusted (self-signed certificate)"
    assert connection_fault(caused(httpx2.ConnectError("x"), fault)) == output


def test_other_errors_have_no_connection_fault() -> None:
    assert connection_fault(KeyError("x")) is None
    looped = ValueError("x")
    looped.__cause__ = looped
    assert connection_fault(looped) is None


@pytest.mark.usefixtures("no_proxy")
def test_a_proxy_is_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not uses_proxy("http://box/v1")
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "localhost")
    assert uses_proxy("http://box/v1")
    assert not uses_proxy("https://box/v1") and not uses_proxy("http://localhost:8000/v1")


def test_the_http_library_is_the_one_that_the_package_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    assert http_library("huggingface_hub") is http_library("openai") is httpx2
    monkeypatch.setattr(metadata, "requires", lambda package: ["httpx<1,>=0.23", "tqdm"])
    monkeypatch.setitem(sys.modules, "httpx", socket)
    assert http_library("openai") is socket
