"""Serving speed beside vLLM and llama.cpp: the adapters of this checkout, on this machine, in one interleaved run.

    python perf/peers.py [--vllm .venv-vllm/bin/vllm] [--llamacpp] [--base] [--clients 16] [--tokens 128] [--rounds 3]

In a checkout with trained adapters; `make vllm` installs vLLM. `torch` and `llamacpp` are `bilora serve` with either
engine; `vllm` is vLLM, started by the line of `bilora serve --print vllm`; `llama.cpp` is llama-cpp-python in this
process, without a server, for one client only. All are loaded before the first is asked, and one is asked at a time.
Each client asks one question after the other for the two adapters in turn, a single client for the first adapter, as a
stream and greedily, and each answer has `--tokens` tokens. It prints medians of the rounds: tokens per second, and the
median time to the first token.

    python perf/peers.py --vllm .venv-vllm/bin/vllm --compare 40

asks the adapters that many questions in 32-bit and counts the answers that differ from vLLM's, token for token.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import signal
import socket
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

START_S = 600
ADAPTERS = ("codegen", "docstring")
COPIED = ("params.yaml", "adapters", "data", "models", "benchmarking")


@dataclass(frozen=True)
class Measured:
    """One round of one server: tokens per second, and the median time to the first token in seconds."""

    speed: float
    first_s: float


def questions(
    count: int, adapters: Sequence[str] = ADAPTERS, *, base: bool = False
) -> list[tuple[str, list[dict[str, str]]]]:
    """Return (system, messages) of test rows, the adapters' in turn; with `base` all are for the base."""
    rows: dict[str, list[str]] = {}
    for name in adapters:
        text = (Path("data/splits") / name / "test.jsonl").read_text(encoding="utf-8")
        rows[name] = [json.loads(line)["prompt"] for line in text.splitlines()]
    found = []
    for number in range(count):
        name = adapters[number % len(adapters)]
        prompt = rows[name][number // len(adapters) % len(rows[name])]
        messages = [dict(one) for one in load_task(name).messages(prompt)]
        found.append(("base" if base else name, messages))
    return found


def ask(port: int, adapter: str, messages: list[dict[str, str]], **body: Any) -> Iterator[dict[str, Any]]:
    """Yield the chunks of an answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=START_S)
    sent = {"model": adapter, "messages": messages, "temperature": 0, "stream": True, **body}
    connection.request("POST", "/v1/chat/completions", json.dumps(sent), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        raise SystemExit(f"{adapter} at port {port}: {reply.read().decode()}")
    for line in reply:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])
    connection.close()


def asked_by_clients(port: int, options: argparse.Namespace) -> Measured:
    """Let clients ask a server until all questions are answered."""
    waiting: queue.SimpleQueue[tuple[str, list[dict[str, str]]]] = queue.SimpleQueue()
    adapters = ADAPTERS if options.clients > 1 else ADAPTERS[:1]
    for one in questions(options.clients * options.each, adapters, base=options.base):
        waiting.put(one)
    firsts: list[float] = []

    def client() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                adapter, messages = waiting.get_nowait()
                began, first = time.perf_counter(), None
                for chunk in ask(port, adapter, messages, max_tokens=options.tokens, ignore_eos=True):
                    if first is None and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                        first = time.perf_counter() - began
                firsts.append(first or float("nan"))

    threads = [threading.Thread(target=client) for _ in range(options.clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return Measured(options.clients * options.each * options.tokens / seconds, statistics.median(firsts))


def library_peer() -> Callable[[argparse.Namespace], Measured]:
    """Return what asks llama-cpp-python: the file that the base comes with, and codegen as our server converted it."""
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

    def run(options: argparse.Namespace) -> Measured:
        firsts, made, began = [], 0, time.perf_counter()
        for _, messages in questions(options.each, ADAPTERS[:1]):
            ids = encode_prompt(tokenizer, [Message.model_validate(one) for one in messages])
            model.reset()
            started = time.perf_counter()
            for number, _ in enumerate(model.generate(ids, temp=0.0), start=1):
                made += 1
                if number == 1:
                    firsts.append(time.perf_counter() - started)
                if number == options.tokens:
                    break
        return Measured(made / (time.perf_counter() - began), statistics.median(firsts))

    return run


def free_port() -> int:
    """Return a free TCP port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def started(name: str, command: list[str], folder: Path, port: int, **environment: str) -> Iterator[None]:
    """Run a server until it is no longer needed."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        try:
            until = time.monotonic() + START_S
            while not answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise SystemExit(f"{name} did not start:\n{log.read()[-3000:]}")
                time.sleep(0.5)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def answers(port: int) -> bool:
    """Return whether a server is ready."""
    with contextlib.suppress(OSError):
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def checkout(folder: Path, **changes: Any) -> Path:
    """Copy what a server needs of this checkout, with other params."""
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


def bilora_server(folder: Path, port: int) -> list[str]:
    """Return the command of our server."""
    return [sys.executable, "-m", "bilora", "serve", "--port", str(port)]


def vllm_server(folder: Path, program: Path, port: int) -> list[str]:
    """Return the command that `bilora serve --print vllm` writes, with this program."""
    subprocess.run(
        [sys.executable, "-m", "bilora", "serve", "--print", "vllm", "--port", str(port)],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    script = (folder / "launch/vllm.sh").read_text(encoding="utf-8")
    return ["sh", "-c", script.replace("exec vllm ", f"exec {program.resolve()} ")]


def whole_answers(port: int, count: int, tokens: int) -> list[str]:
    """Return the texts of that many answers per adapter."""
    tasks = Workspace(Path()).params.tasks
    found = []
    for adapter, messages in questions(len(ADAPTERS) * count):
        penalty = tasks[adapter].generation.frequency_penalty
        chunks = ask(port, adapter, messages, max_tokens=tokens, frequency_penalty=penalty)
        found.append("".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"]))
    return found


def main() -> None:
    """Measure and print, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path, help="vLLM's program, in an environment of its own")
    parser.add_argument("--llamacpp", action="store_true", help="measure llama.cpp too")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--each", type=int, default=2, help="questions per client")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", action="store_true", help="ask the base in place of its adapters")
    parser.add_argument("--compare", type=int, default=0, help="questions per adapter")
    options = parser.parse_args()
    if options.compare and (not options.vllm or options.llamacpp or options.base):
        parser.error("--compare: wants --vllm, and neither --llamacpp nor --base")
    dtype = {"base": {"dtype": "float32"}} if options.compare else {}
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))  # by default vLLM leaves one to its HTTP server
    vllm_environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_NO_USAGE_STATS": "1",
    }
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs: dict[str, Callable[[argparse.Namespace], Measured]] = {}
        ports: dict[str, int] = {}

        def start(name: str, command: Callable[[Path, int], list[str]], **changes: Any) -> None:
            folder, port = checkout(place / name, **dtype, **changes), free_port()
            extra = vllm_environment if name == "vllm" else {}
            stack.enter_context(started(name, command(folder, port), folder, port, **extra))
            runs[name], ports[name] = lambda options: asked_by_clients(port, options), port

        start("torch", bilora_server)
        if options.vllm:
            start("vllm", lambda folder, port: vllm_server(folder, options.vllm, port))
        if options.compare:
            ours, theirs = (whole_answers(ports[name], options.compare, options.tokens) for name in ("torch", "vllm"))
            same = sum(one == other for one, other in zip(ours, theirs, strict=True))
            print(f"{same} of {len(ours)} answers are equal")
            raise SystemExit(0 if same == len(ours) else 1)
        if options.llamacpp:
            start("llamacpp", bilora_server, inference={"engine": "llamacpp"})
            if options.clients == 1:
                runs["llama.cpp"] = library_peer()
        found: dict[str, list[Measured]] = {name: [] for name in runs}
        for number in range(options.rounds + 1):  # the first warms up
            for name, run in runs.items():
                one = run(options)
                if number:
                    found[name].append(one)
            print(f"round {number} of {options.rounds} done", file=sys.stderr)
    print(f"{options.clients} clients, {options.tokens} tokens, medians of {options.rounds} rounds\n")
    print("| server | tokens/s | first token |\n|---|---:|---:|")
    for name, rounds in found.items():
        speed, first = (statistics.median(getattr(one, key) for one in rounds) for key in ("speed", "first_s"))
        print(f"| {name} | {speed:.0f} | {first:.2f} s |")


if __name__ == "__main__":
    main()
