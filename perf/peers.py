"""Serving speed beside vLLM and llama.cpp, with the adapters of this workspace, in interleaved rounds.

    python perf/peers.py [--vllm .venv-vllm/bin/vllm] [--llamacpp] [--base] [--clients 16] [--tokens 128] [--rounds 3]

The workspace needs trained adapters; `make vllm` installs vLLM. `torch` and `llamacpp` are `bilora serve` with either
engine; `vllm` runs the command that `bilora serve --print vllm` writes; `llama.cpp` is llama-cpp-python in this
process, without a server, for one client only. All are loaded first; then one at a time receives requests. Each client
sends its requests one after the other, alternating between the two adapters; a single client uses the first adapter.
Completions are greedy, streamed, and `--tokens` tokens long. It prints medians of the rounds: tokens per second, and
the median time to the first token.

    python perf/peers.py --vllm .venv-vllm/bin/vllm --compare 40

sends 40 requests per adapter in 32-bit and counts the completions that equal vLLM's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import yaml

from bilora.bases.prompt import encode_prompt
from bilora.records import Message
from bilora.storage import adapter_sha256
from bilora.tasks import load_task
from bilora.workspace import Workspace

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.ports import free_port

START_S = 600
ADAPTERS = ("codegen", "docstring")
COPIED = ("params.yaml", "adapters", "data", "models", "benchmarking")


@dataclass(frozen=True)
class RoundResult:
    """One round of one server: tokens per second, and the median time to the first token in seconds."""

    tokens_per_s: float
    first_token_s: float


def test_requests(
    count: int, adapters: Sequence[str] = ADAPTERS, *, base: bool = False
) -> list[tuple[str, list[dict[str, str]]]]:
    """Return (model, messages) of test samples, alternating between the adapters; with `base` the model is the base."""
    rows: dict[str, list[str]] = {}
    for name in adapters:
        text = (Path("data/splits") / name / "test.jsonl").read_text(encoding="utf-8")
        rows[name] = [json.loads(line)["prompt"] for line in text.splitlines()]
    requests = []
    for number in range(count):
        name = adapters[number % len(adapters)]
        prompt = rows[name][number // len(adapters) % len(rows[name])]
        messages = [dict(message) for message in load_task(name).messages(prompt)]
        requests.append(("base" if base else name, messages))
    return requests


def stream_chat(port: int, model: str, messages: list[dict[str, str]], **parameters: Any) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a completion."""
    connection = HTTPConnection("127.0.0.1", port, timeout=START_S)
    body = {"model": model, "messages": messages, "temperature": 0, "stream": True, **parameters}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"{model} at port {port}: {response.read().decode()}")
    for line in response:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])
    connection.close()


def run_clients(port: int, options: argparse.Namespace) -> RoundResult:
    """Send all requests to a server from concurrent clients."""
    waiting: queue.SimpleQueue[tuple[str, list[dict[str, str]]]] = queue.SimpleQueue()
    adapters = ADAPTERS if options.clients > 1 else ADAPTERS[:1]
    for request in test_requests(options.clients * options.each, adapters, base=options.base):
        waiting.put(request)
    first_token_s: list[float] = []

    def client() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                model, messages = waiting.get_nowait()
                began, first = time.perf_counter(), None
                for chunk in stream_chat(port, model, messages, max_tokens=options.tokens, ignore_eos=True):
                    if first is None and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                        first = time.perf_counter() - began
                first_token_s.append(first or float("nan"))

    threads = [threading.Thread(target=client) for _ in range(options.clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return RoundResult(options.clients * options.each * options.tokens / seconds, statistics.median(first_token_s))


def load_llama_cpp_python() -> Callable[[argparse.Namespace], RoundResult]:
    """Load the base's GGUF file and the converted adapter codegen; return a function that runs one round."""
    from llama_cpp import Llama

    workspace = Workspace(Path())
    base = workspace.base()
    (adapter,) = workspace.cache("gguf").glob(f"adapter-{adapter_sha256(workspace.adapter(ADAPTERS[0]))}-*-f16-*.gguf")
    model = Llama(
        str(base.gguf(None, lambda *_: Path())),
        n_ctx=2048,
        n_threads=len(os.sched_getaffinity(0)),
        lora_path=str(adapter),
        verbose=False,
    )
    tokenizer = base.tokenizer()

    def run(options: argparse.Namespace) -> RoundResult:
        first_token_s, tokens, began = [], 0, time.perf_counter()
        for _, messages in test_requests(options.each, ADAPTERS[:1]):
            ids = encode_prompt(tokenizer, [Message.model_validate(message) for message in messages])
            model.reset()
            request_began = time.perf_counter()
            for number, _ in enumerate(model.generate(ids, temp=0.0), start=1):
                tokens += 1
                if number == 1:
                    first_token_s.append(time.perf_counter() - request_began)
                if number == options.tokens:
                    break
        return RoundResult(tokens / (time.perf_counter() - began), statistics.median(first_token_s))

    return run


@contextlib.contextmanager
def run_server(name: str, command: list[str], folder: Path, port: int, **environment: str) -> Iterator[None]:
    """Run a server for the length of the block."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        try:
            deadline = time.monotonic() + START_S
            while not is_healthy(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"{name} did not start:\n{log.read()[-3000:]}")
                time.sleep(0.5)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def is_healthy(port: int) -> bool:
    """Return whether a server's health check passes."""
    with contextlib.suppress(OSError):
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def copy_workspace(folder: Path, **changes: Any) -> Path:
    """Copy the parts of this workspace that a server needs, with changed params."""
    folder.mkdir()
    for name in COPIED:
        source = Path(name)
        if source.is_dir():
            shutil.copytree(source, folder / name)
        elif source.exists():
            shutil.copy(source, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        params[key] = {**(params.get(key) or {}), **value}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (folder / ".cache").symlink_to(Path(".cache").resolve())
    return folder


def bilora_command(folder: Path, port: int) -> list[str]:
    """Return the command that starts `bilora serve`."""
    return [sys.executable, "-m", "bilora", "serve", "--port", str(port)]


def vllm_command(folder: Path, executable: Path, port: int) -> list[str]:
    """Return the command that `bilora serve --print vllm` writes, with this executable."""
    subprocess.run(
        [sys.executable, "-m", "bilora", "serve", "--print", "vllm", "--port", str(port)],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    script = (folder / "launch/vllm.sh").read_text(encoding="utf-8")
    return ["sh", "-c", script.replace("exec vllm ", f"exec {executable.resolve()} ")]


def completion_texts(port: int, count: int, tokens: int) -> list[str]:
    """Return the texts of `count` completions per adapter."""
    tasks = Workspace(Path()).params.tasks
    texts = []
    for adapter, messages in test_requests(len(ADAPTERS) * count):
        penalty = tasks[adapter].generation.frequency_penalty
        chunks = stream_chat(port, adapter, messages, max_tokens=tokens, frequency_penalty=penalty)
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        texts.append("".join(choice["delta"].get("content") or "" for choice in choices))
    return texts


def main() -> None:
    """Measure and print, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path, help="vLLM's executable, in its own environment")
    parser.add_argument("--llamacpp", action="store_true", help="measure llama.cpp too")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--each", type=int, default=2, help="requests per client")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", action="store_true", help="measure the base instead of its adapters")
    parser.add_argument("--compare", type=int, default=0, help="requests per adapter whose completions are compared")
    options = parser.parse_args()
    if options.compare and (not options.vllm or options.llamacpp or options.base):
        parser.error("--compare needs --vllm, and excludes --llamacpp and --base")
    dtype = {"base": {"dtype": "float32"}} if options.compare else {}
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))  # by default vLLM reserves one for its HTTP server
    vllm_environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_NO_USAGE_STATS": "1",
    }
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs: dict[str, Callable[[argparse.Namespace], RoundResult]] = {}
        ports: dict[str, int] = {}

        def start(name: str, command: Callable[[Path, int], list[str]], **changes: Any) -> None:
            folder, port = copy_workspace(root / name, **dtype, **changes), free_port()
            extra = vllm_environment if name == "vllm" else {}
            stack.enter_context(run_server(name, command(folder, port), folder, port, **extra))
            runs[name], ports[name] = lambda options: run_clients(port, options), port

        start("torch", bilora_command)
        if options.vllm:
            start("vllm", lambda folder, port: vllm_command(folder, options.vllm, port))
        if options.compare:
            ours, theirs = (
                completion_texts(ports[name], options.compare, options.tokens) for name in ("torch", "vllm")
            )
            same = sum(our_text == their_text for our_text, their_text in zip(ours, theirs, strict=True))
            print(f"{same} of {len(ours)} completions are equal")
            raise SystemExit(0 if same == len(ours) else 1)
        if options.llamacpp:
            start("llamacpp", bilora_command, inference={"engine": "llamacpp"})
            if options.clients == 1:
                runs["llama.cpp"] = load_llama_cpp_python()
        results: dict[str, list[RoundResult]] = {name: [] for name in runs}
        for number in range(options.rounds + 1):
            for name, run in runs.items():
                result = run(options)
                if number:  # the first round warms up
                    results[name].append(result)
            print(f"round {number} of {options.rounds} done", file=sys.stderr)
    print(f"{options.clients} clients, {options.tokens} tokens, medians of {options.rounds} rounds\n")
    print("| server | tokens/s | first token |\n|---|---:|---:|")
    for name, rounds in results.items():
        speed = statistics.median(result.tokens_per_s for result in rounds)
        first_token_s = statistics.median(result.first_token_s for result in rounds)
        print(f"| {name} | {speed:.0f} | {first_token_s:.2f} s |")


if __name__ == "__main__":
    main()
