"""Use the installed package in the current folder: `python smoke.py train`, then `answer` and `page`.

`make test-install` runs this in environments without the checkout. The folder contains params.yaml and what it names.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import bilora
from bilora.errors import ExitCode

COMMAND = Path(sys.executable).parent / "bilora"
DATA_STAGES = ("data-download", "data-process", "data-split")
VERDICTS = (ExitCode.OK, ExitCode.REGRESSED, ExitCode.INCONCLUSIVE)
"""What the gate may say of adapters that trained for a few steps."""
QUESTION = "def area(r): return 3.14159 * r * r"
START_S = 120.0


def main() -> int:
    """Run the part that the first argument names."""
    installed = Path(bilora.__file__).parent
    if not installed.is_relative_to(sys.prefix) or not (installed / "py.typed").is_file():
        raise SystemExit(f"smoke: bilora is imported from {installed}, or without its types")
    {"train": train, "answer": answer, "page": page}[sys.argv[1]]()
    return 0


def train() -> None:
    """Run the pipeline's commands to a verdict, and publish the adapters whatever the verdict is."""
    workspace = bilora.Workspace()
    for task in workspace.params.tasks:
        for stage in DATA_STAGES:
            run(stage, task)
    run("train", "--all")
    for task in workspace.params.tasks:
        run("evaluate", task)
    run("benchmark", codes=VERDICTS)
    publish(workspace)


def publish(workspace: bilora.Workspace) -> None:
    """Publish into the folder `hub`, without the gate."""
    from bilora.cli.push_adapters import read_bundle_info
    from bilora.publishing.bundle import build_bundle
    from bilora.publishing.push import publish_unchecked
    from bilora.results import read_results

    adapters = {task: workspace.checked_adapter(task) for task in workspace.params.tasks}
    files = build_bundle(adapters, {}, read_results(workspace.results), read_bundle_info(workspace, None))
    hub, _ = workspace.hub_to_publish()
    publish_unchecked(hub, files, message="Smoke")


def answer() -> None:
    """Answer with every adapter, on the command line and over HTTP."""
    adapters = sorted(path.name for path in Path("adapters").iterdir())
    for name in adapters:
        run("generate", "--model", name, QUESTION)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([COMMAND, "serve", "--port", str(port)]) as server:
        try:
            url = f"http://127.0.0.1:{port}/v1"
            wait_for(f"{url}/models", server)
            for name in adapters:
                message = {"role": "user", "content": QUESTION}
                reply = post(f"{url}/chat/completions", {"model": name, "messages": [message], "max_tokens": 8})
                if reply["choices"][0]["finish_reason"] not in {"stop", "length"}:
                    raise SystemExit(f"smoke: {name} answered {reply}")
        finally:
            server.terminate()
    if server.returncode:
        raise SystemExit(f"smoke: the server ended with {server.returncode}")


def page() -> None:
    """Draw the page with its model."""
    from streamlit.testing.v1 import AppTest

    drawn = AppTest.from_file(Path("hf_space/app.py").resolve(), default_timeout=START_S).run()
    if drawn.exception or drawn.error or not drawn.title:
        raise SystemExit(f"smoke: the page shows {drawn.exception or drawn.error}")


def run(*arguments: str, codes: Iterable[int] = (ExitCode.OK,)) -> None:
    """Run a command of the package; another exit code than these is an error."""
    if (code := subprocess.run([COMMAND, *arguments], check=False).returncode) not in codes:
        raise SystemExit(f"smoke: bilora {' '.join(arguments)} ended with {code}")


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("smoke: the server did not start")


def post(url: str, document: object) -> dict[str, list[dict[str, object]]]:
    """Send JSON and return the JSON of the reply."""
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as reply:
            received: dict[str, list[dict[str, object]]] = json.load(reply)
            return received
    except urllib.error.HTTPError as error:
        raise SystemExit(f"smoke: HTTP {error.code}: {error.read()[:500]!r}") from None


if __name__ == "__main__":
    raise SystemExit(main())
