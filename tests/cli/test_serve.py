"""The command `bilora serve`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from openai import AuthenticationError, OpenAI
from support.checkouts import ROOT, environment_of
from support.ports import free_port
from support.random_adapters import write_random_adapter

from bilora.bases.kinds.folder import FolderBase
from bilora.storage import adapter_sha256

pytestmark = pytest.mark.slow

KEY = "sk-of-the-door"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with params, the smoke base and one adapter, and another version of it beside."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copy(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")
    (folder / "models").symlink_to(ROOT / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed, name in enumerate(("adapters/codegen", "other")):
            write_random_adapter(Path(name), FolderBase.at("models/smoke"), ["qkv_proj"], seed=seed)
    yield folder


def environment(place: Path) -> dict[str, str]:
    return {**environment_of(place), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def bilora(place: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from bilora.cli import main; main()", *arguments]
    return subprocess.run(
        command, cwd=place, env={**environment(place), **extra}, capture_output=True, text=True, check=False, timeout=60
    )


def health(url: str) -> dict[str, object]:
    with build_opener(ProxyHandler({})).open(f"{url}/health", timeout=5) as reply:
        health_report: dict[str, object] = json.loads(reply.read())
    return health_report


def test_the_server_loads_a_new_version_and_exits_with_0(place: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", "from bilora.cli import main; main()", "serve", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--api-key-env", "DOOR_KEY"],
        cwd=place,
        env={**environment(place), "DOOR_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                first = health(url)
                break
            except OSError:
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
        assert first["adapters"] == {"codegen": adapter_sha256(place / "adapters" / "codegen")}
        client = OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        assert [model.id for model in client.models.list()] == ["base", "codegen"]
        messages = [{"role": "user", "content": "sum"}]
        client.chat.completions.create(model="codegen", messages=messages, max_tokens=3)  # type: ignore[arg-type]
        with pytest.raises(AuthenticationError):
            OpenAI(base_url=f"{url}/v1", api_key="sk-other", max_retries=0).models.list()
        (place / "adapters" / "codegen").rename(place / "adapters" / ".old")
        (place / "other").rename(place / "adapters" / "codegen")
        while health(url)["adapters"] == first["adapters"] and time.monotonic() < until:
            time.sleep(0.1)
        assert health(url)["adapters"] == {"codegen": adapter_sha256(place / "adapters" / "codegen")}
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out == f"serve: base, codegen at {url}/v1\n" and KEY not in out


def test_sigterm_exits_with_0(place: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "bilora", "serve", "--port", str(port)],
        cwd=place, env=environment(place), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                health(f"http://127.0.0.1:{port}")
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_a_missing_key_is_one_sentence(place: Path) -> None:
    done = bilora(place, "serve", "--api-key-env", "NO_SUCH_KEY")
    assert done.returncode == 2
    message = "--api-key-env: the environment variable NO_SUCH_KEY is empty or not set; set it to the key."
    assert done.stderr == f"bilora: {message}\n"


def test_the_launch_line_is_printed_and_written(place: Path) -> None:
    done = bilora(place, "serve", "--print", "vllm")
    _, _, model, option, name, *_ = shlex.split(done.stdout)
    assert done.returncode == 0 and (option, name) == ("--served-model-name", "base")
    assert Path(model).is_absolute() and Path(model).samefile(place / "models" / "smoke")
    script = place / "launch" / "vllm.sh"
    assert done.stdout.strip() in script.read_text(encoding="utf-8") and os.access(script, os.X_OK)
    without = bilora(place, "serve", "--print", "ray")
    assert without.returncode == 2 and "--adapters-at" in without.stderr
    assert bilora(place, "serve", "--print", "ray", "--adapters-at", "s3://b/c").stdout == "serve run launch/ray.yaml\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--print", "vllm", "--batch", "4"], "--batch: no effect with --print vllm"),
        (["--print", "ray", "--adapters-at", "s3://b", "--port", "9"], "--port: no effect with --print ray"),
        (["--adapters-at", "s3://b", "--into", "x"], "--adapters-at, --into: no effect without --print"),
    ],
)
def test_an_option_without_effect_is_refused(place: Path, given: list[str], message: str) -> None:
    done = bilora(place, "serve", *given)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
