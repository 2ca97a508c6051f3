"""Load test of `bilora serve`: correctness of every answer under concurrent requests, then latency and memory.

    python perf/server.py [--requests 10000] [--clients 200] [--seconds 60] [--base models/smoke] [--seed 0]

First 16 connections send `--requests` in random order, streamed or not, some aborted, while the adapter `codegen` is
replaced every few seconds; each answer is compared with that of transformers with the adapter merged into the
weights. Then `--clients` connections send requests for `--seconds`. Exits with 1 if an answer differs or a response
is an error other than 429.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import torch
import yaml
from random_bases import ATTENTION, MLP, save_random_adapter

from bilora.bases.base import Base
from bilora.bases.kinds.folder import FolderBase
from bilora.bases.prompt import encode_prompt
from bilora.bases.special_tokens import stop_ids
from bilora.records import Message
from bilora.storage import adapter_sha256
from bilora.tasks import load_task

PORT = 8765
TOKENS = 8
PROMPTS = 40
WORDS = ("write", "a", "function", "that", "takes", "list", "of", "numbers", "text", "and", "returns", "the", "sum")
VERSIONS = {"codegen": ATTENTION, "docstring": MLP, "codegen2": ATTENTION}
ROOT = Path(__file__).resolve().parents[1]


def prompts() -> list[str]:
    """Return the prompts, 3 to 60 words each."""
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 60))) for _ in range(PROMPTS)]


def make_workspace(root: Path, base: Base) -> dict[str, Path]:
    """Write a workspace that `bilora serve` can serve; return the folder of each adapter version."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["base"] = {"kind": "folder", "path": base.id, "dtype": base.dtype}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (root / "models").symlink_to(ROOT / "models")
    model = base.load(training=False).model
    folders = {
        name: save_random_adapter(model, root / "versions" / name, base, targets, seed=seed)
        for seed, (name, targets) in enumerate(VERSIONS.items())
    }
    for name in ("codegen", "docstring"):
        shutil.copytree(folders[name], root / "adapters" / name)
    return folders


def reference_answers(base: Base, folders: dict[str, Path]) -> dict[tuple[str, str], str]:
    """Return transformers' greedy answers, keyed by the first 12 digits of the adapter's sha256 and the prompt."""
    from peft import PeftModel

    expected_answers = {}
    for version in ("base", *folders):
        loaded = base.load(training=False)
        model, version_id, task = loaded.model, "", None
        if version != "base":
            model = PeftModel.from_pretrained(model, str(folders[version])).merge_and_unload().eval()
            version_id, task = adapter_sha256(folders[version])[:12], load_task(version.removesuffix("2"))
        for text in prompts():
            messages = task.messages(text) if task else (Message(role="user", content=text),)
            ids = torch.tensor([encode_prompt(loaded.tokenizer, messages)])
            with torch.inference_mode():
                output_ids = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS,
                    eos_token_id=stop_ids(loaded.tokenizer, model.generation_config), pad_token_id=0,
                )  # fmt: skip
            answer = loaded.tokenizer.decode(output_ids[0, ids.shape[1] :], skip_special_tokens=True)
            expected_answers[version_id, text] = answer
    return expected_answers


@contextlib.contextmanager
def run_server(workspace: Path) -> Iterator[int]:
    """Run `bilora serve` in a workspace; yield its process id."""
    command = [sys.executable, "-c", "from bilora.cli import main; main()", "serve", "--port", str(PORT)]
    process = subprocess.Popen(command, cwd=workspace, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                connection = HTTPConnection("127.0.0.1", PORT, timeout=5)
                connection.request("GET", "/health")
                connection.getresponse().read()
                break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(90)


def send_request(
    connection: HTTPConnection, model: str, text: str, *, stream: bool, abort: bool = False
) -> tuple[int, str, str]:
    """Send one request; return the status, the first 12 digits of the adapter's sha256, and the answer."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": TOKENS, "stream": stream}
    body["frequency_penalty"] = 0  # as in the reference; the docstring task sets a penalty
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if abort:
        connection.close()
        return 0, "", ""
    data = response.read()
    if response.status != 200:
        return response.status, "", ""
    lines = data.decode().splitlines() if stream else [f"data: {data.decode()}"]
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [choice.get("delta") or choice.get("message") or {} for event in events for choice in event["choices"]]
    return (
        200,
        events[0]["system_fingerprint"].partition("-")[2],
        "".join(delta.get("content") or "" for delta in deltas),
    )


def count_wrong_answers(
    workspace: Path, folders: dict[str, Path], expected_answers: dict[tuple[str, str], str], count: int, seed: int
) -> int:
    """Send `count` requests; return how many answers differ from the reference."""
    outcomes: Counter[str] = Counter()
    wrong: Counter[tuple[str, str, str]] = Counter()
    remaining = iter(range(count))
    lock, finished, texts = threading.Lock(), threading.Event(), prompts()

    def client(seed: int) -> None:
        rng, connection = random.Random(seed), HTTPConnection("127.0.0.1", PORT, timeout=60)
        while True:
            with lock:
                if next(remaining, None) is None:
                    return
            model, text = rng.choice(("base", "codegen", "docstring")), rng.choice(texts)
            if rng.random() < 0.05:
                send_request(connection, model, text, stream=rng.random() < 0.5, abort=True)
            status, version_id, answer = send_request(connection, model, text, stream=rng.random() < 0.5)
            right = status == 200 and expected_answers[version_id, text] == answer
            with lock:
                outcomes["equal" if right else f"status {status}" if status != 200 else "DIFFERENT"] += 1
                outcomes[f"by {model} {version_id or 'base'}"] += 1
                if not right:
                    wrong[model, expected_answers.get((version_id, text), ""), answer] += 1

    def replace_adapter() -> None:
        turn = 0
        while not finished.wait(3):
            turn += 1
            source, target = folders[("codegen", "codegen2")[turn % 2]], workspace / "adapters" / "codegen"
            new = target.with_name(".new")
            shutil.copytree(source, new)
            old = target.with_name(".old")
            target.rename(old)
            new.rename(target)
            shutil.rmtree(old)

    replacer = threading.Thread(target=replace_adapter)
    clients = [threading.Thread(target=client, args=(seed * 16 + number,)) for number in range(16)]
    began = time.perf_counter()
    for thread in (replacer, *clients):
        thread.start()
    for thread in clients:
        thread.join()
    finished.set()
    replacer.join()
    seconds = time.perf_counter() - began
    print(f"{count} requests in {seconds:.0f} s ({count / seconds:.0f} per second): {dict(sorted(outcomes.items()))}")
    for (model, expected, answer), times in wrong.items():
        print(f"  {model}, {times} times: {answer!r}, expected {expected!r}")
    return count - outcomes["equal"]


def measure_load(pid: int, clients: int, seconds: float) -> int:
    """Send requests from `clients` connections at once; return how many responses were errors other than 429."""
    outcomes: Counter[str] = Counter()
    latencies: list[float] = []
    memory: list[float] = []
    lock, end, texts = threading.Lock(), time.monotonic() + seconds, prompts()

    def client(seed: int) -> None:
        rng, connection = random.Random(seed), HTTPConnection("127.0.0.1", PORT, timeout=60)
        while time.monotonic() < end:
            began = time.perf_counter()
            try:
                model, text = rng.choice(("base", "codegen", "docstring")), rng.choice(texts)
                outcome = str(send_request(connection, model, text, stream=rng.random() < 0.5)[0])
            except (OSError, HTTPException) as error:
                connection.close()
                outcome = type(error).__name__
            with lock:
                outcomes[outcome] += 1
                if outcome == "200":
                    latencies.append(time.perf_counter() - began)
            if outcome == "429":
                time.sleep(1)

    def resident_mib() -> float:
        lines: Any = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        memory.append(resident_mib())
        time.sleep(1)
    for thread in threads:
        thread.join()
    percentiles = statistics.quantiles(latencies, n=100)
    print(f"{clients} clients, {seconds:.0f} s: {dict(outcomes)}, {len(latencies) / seconds:.1f} answers per second")
    p50, p95, p99 = (percentiles[percent - 1] for percent in (50, 95, 99))
    print(f"  seconds to the complete answer: p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f}")
    half = len(memory) // 2
    print(f"  MiB: after 5 s {memory[min(5, half)]:.0f}, halfway {memory[half]:.0f}, at the end {memory[-1]:.0f}")
    return sum(count for outcome, count in outcomes.items() if outcome not in ("200", "429"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", default="models/smoke")
    options = parser.parse_args()
    os.chdir(ROOT)
    base = FolderBase.at(options.base)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        folders = make_workspace(workspace, base)
        expected_answers = reference_answers(base, folders)
        print(f"{len(expected_answers)} reference answers", flush=True)
        with run_server(workspace) as pid:
            if options.requests:
                failures += count_wrong_answers(workspace, folders, expected_answers, options.requests, options.seed)
            if options.seconds:
                failures += measure_load(pid, options.clients, options.seconds)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
