"""Load test of `bilora serve`: correctness of every answer under concurrency, then latency and memory.

    python perf/server.py [--requests 10000] [--clients 200] [--seconds 60] [--base models/smoke] [--seed 0]

First 16 connections send `--requests` in random order, streamed or not, some aborted, while the adapter `codegen` is
replaced every few seconds; each answer is compared with that of transformers with the adapter merged into the
weights. Then `--clients` connections send requests for `--seconds`. Exits with 1 if an answer differs or a reply is
an error other than 429.
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
from random_adapters import ATTENTION, MLP, random_adapter

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
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=chance.randint(3, 60))) for _ in range(PROMPTS)]


def checkout(place: Path, base: Base) -> dict[str, Path]:
    """Fill a folder in which `bilora serve` finds base and adapters; return the folder of each adapter version."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["base"] = {"kind": "folder", "path": base.id, "dtype": base.dtype}
    (place / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (place / "models").symlink_to(ROOT / "models")
    model, revision = base.load(training=False).model, base.identity
    folders = {
        name: random_adapter(model, place / "versions" / name, base, revision, kind, seed=seed)
        for seed, (name, kind) in enumerate(VERSIONS.items())
    }
    for name in ("codegen", "docstring"):
        shutil.copytree(folders[name], place / "adapters" / name)
    return folders


def reference_answers(base: Base, folders: dict[str, Path]) -> dict[tuple[str, str], str]:
    """Return the reference answers of transformers' generate, by the start of the adapter's sha256 and the prompt."""
    from peft import PeftModel

    expected_answers = {}
    for version in ("base", *folders):
        loaded = base.load(training=False)
        model, mark, task = loaded.model, "", None
        if version != "base":
            model = PeftModel.from_pretrained(model, str(folders[version])).merge_and_unload().eval()
            mark, task = adapter_sha256(folders[version])[:12], load_task(version.removesuffix("2"))
        for text in prompts():
            messages = task.messages(text) if task else (Message(role="user", content=text),)
            ids = torch.tensor([encode_prompt(loaded.tokenizer, messages)])
            with torch.inference_mode():
                made = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS,
                    eos_token_id=stop_ids(loaded.tokenizer, model.generation_config), pad_token_id=0,
                )  # fmt: skip
            expected_answers[mark, text] = loaded.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    return expected_answers


@contextlib.contextmanager
def server(place: Path) -> Iterator[int]:
    """Run `bilora serve` in a folder; yield its process id."""
    command = [sys.executable, "-c", "from bilora.cli import main; main()", "serve", "--port", str(PORT)]
    process = subprocess.Popen(command, cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
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


def ask(
    connection: HTTPConnection, model: str, text: str, *, stream: bool, leave: bool = False
) -> tuple[int, str, str]:
    """Send one request; return status, start of the adapter's sha256, and answer."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": TOKENS, "stream": stream}
    body["frequency_penalty"] = 0  # as in the reference; the settings of docstring have one
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if leave:
        connection.close()
        return 0, "", ""
    data = response.read()
    if response.status != 200:
        return response.status, "", ""
    lines = data.decode().splitlines() if stream else [f"data: {data.decode()}"]
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [choice.get("delta") or choice.get("message") or {} for one in events for choice in one["choices"]]
    return (
        200,
        events[0]["system_fingerprint"].partition("-")[2],
        "".join(one.get("content") or "" for one in deltas),
    )


def count_wrong_answers(
    place: Path, folders: dict[str, Path], expected_answers: dict[tuple[str, str], str], count: int, seed: int
) -> int:
    """Send `count` requests; return how many answers differ from the reference."""
    tally: Counter[str] = Counter()
    wrong: Counter[tuple[str, str, str]] = Counter()
    left = iter(range(count))
    lock, ended, texts = threading.Lock(), threading.Event(), prompts()

    def client(seed: int) -> None:
        chance, connection = random.Random(seed), HTTPConnection("127.0.0.1", PORT, timeout=60)
        while True:
            with lock:
                if next(left, None) is None:
                    return
            model, text = chance.choice(("base", "codegen", "docstring")), chance.choice(texts)
            if chance.random() < 0.05:
                ask(connection, model, text, stream=chance.random() < 0.5, leave=True)
            status, mark, answer = ask(connection, model, text, stream=chance.random() < 0.5)
            right = status == 200 and expected_answers[mark, text] == answer
            with lock:
                tally["equal" if right else f"status {status}" if status != 200 else "DIFFERENT"] += 1
                tally[f"by {model} {mark or 'base'}"] += 1
                if not right:
                    wrong[model, expected_answers.get((mark, text), ""), answer] += 1

    def replace() -> None:
        turn = 0
        while not ended.wait(3):
            turn += 1
            source, target = folders[("codegen", "codegen2")[turn % 2]], place / "adapters" / "codegen"
            fresh = target.with_name(".fresh")
            shutil.copytree(source, fresh)
            old = target.with_name(".old")
            target.rename(old)
            fresh.rename(target)
            shutil.rmtree(old)

    replacing = threading.Thread(target=replace)
    clients = [threading.Thread(target=client, args=(seed * 16 + number,)) for number in range(16)]
    began = time.perf_counter()
    for thread in (replacing, *clients):
        thread.start()
    for thread in clients:
        thread.join()
    ended.set()
    replacing.join()
    seconds = time.perf_counter() - began
    print(f"{count} requests in {seconds:.0f} s ({count / seconds:.0f} per second): {dict(sorted(tally.items()))}")
    for (model, expected, answer), times in wrong.items():
        print(f"  {model}, {times} times: {answer!r}, expected {expected!r}")
    return count - tally["equal"]


def load(pid: int, clients: int, seconds: float) -> int:
    """Send requests from `clients` connections at once; return how many replies were errors other than 429."""
    status: Counter[str] = Counter()
    waits: list[float] = []
    memory: list[float] = []
    lock, end, texts = threading.Lock(), time.monotonic() + seconds, prompts()

    def client(seed: int) -> None:
        chance, connection = random.Random(seed), HTTPConnection("127.0.0.1", PORT, timeout=60)
        while time.monotonic() < end:
            began = time.perf_counter()
            try:
                model, text = chance.choice(("base", "codegen", "docstring")), chance.choice(texts)
                found = str(ask(connection, model, text, stream=chance.random() < 0.5)[0])
            except (OSError, HTTPException) as fault:
                connection.close()
                found = type(fault).__name__
            with lock:
                status[found] += 1
                if found == "200":
                    waits.append(time.perf_counter() - began)
            if found == "429":
                time.sleep(1)

    def resident() -> float:
        lines: Any = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        memory.append(resident())
        time.sleep(1)
    for thread in threads:
        thread.join()
    steps = statistics.quantiles(waits, n=100)
    print(f"{clients} clients, {seconds:.0f} s: replies {dict(status)}, {len(waits) / seconds:.1f} answers per second")
    print(f"  seconds to the complete answer: p50 {steps[49]:.2f}, p95 {steps[94]:.2f}, p99 {steps[98]:.2f}")
    half = len(memory) // 2
    print(f"  MiB: after 5 s {memory[min(5, half)]:.0f}, halfway {memory[half]:.0f}, at the end {memory[-1]:.0f}")
    return sum(count for name, count in status.items() if name not in ("200", "429"))


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
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        folders = checkout(place, base)
        expected_answers = reference_answers(base, folders)
        print(f"{len(expected_answers)} reference answers", flush=True)
        with server(place) as pid:
            wrong = (
                count_wrong_answers(place, folders, expected_answers, options.requests, options.seed)
                if options.requests
                else 0
            )
            wrong += load(pid, options.clients, options.seconds) if options.seconds else 0
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
