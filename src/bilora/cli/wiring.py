"""Where everything lies and how every concrete object is built. Only the verbs come here."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.api_keys import clean_key
from bilora.errors import BadData, MissingStep, NotReady, OtherBase, ParamsError, Unreachable
from bilora.outside import Endpoint
from bilora.params import PARAMS_FILE, Params, TaskParams, read_params
from bilora.storage import read_json, read_record, read_records

if TYPE_CHECKING:
    from bilora.protocols import Engine, Judge, Source
    from bilora.records import Sample
    from bilora.sandbox import ProcessSandbox
    from bilora.tasks.task import Task
    from bilora.training_pairs import DpoPair, KtoPair, RatedPairs

RAW = Path("data/raw")
SAMPLES = Path("data/samples")
REPORTS = Path("data/reports")
SPLITS = Path("data/splits")
ADAPTERS = Path("adapters")
CHECKPOINTS = Path("checkpoints")
RUNS = Path("runs")
EVALUATION = Path("evaluation")
TRAIN_METRICS = Path("metrics/train")
TRAIN_PLOTS = Path("plots/train")
VALIDATION_PLOTS = Path("plots/validation")
TRAINING_METRICS = Path("training_metrics.json")
RESULTS = Path("benchmarking/results.json")
BASELINE = Path("benchmarking/baseline.json")
HISTORY = Path("benchmarking/history.jsonl")
BENCHMARK_METRICS = Path("metrics/benchmark.json")
REPORT = Path("report.html")
JUDGE_CHECK = Path("benchmarking/judge_check.json")
FEEDBACK = Path("data/feedback")
OUTBOX = FEEDBACK / "outbox.sqlite3"
SHARDS = FEEDBACK / "shards"
RATED_PAIRS = FEEDBACK / "training_pairs.json"
LOCK = Path("requirements.txt")
PROFILES = Path("profiles")


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read params.yaml against the tasks that exist."""
    from bilora.tasks import known_tasks

    return read_params(path, known_tasks=known_tasks())


def load_named(name: str) -> tuple[Params, TaskParams, Task]:
    """Read params.yaml and one of its tasks."""
    from bilora.tasks import load_task

    params, task = load_params(), load_task(name)
    if name not in params.tasks:
        raise ParamsError(PARAMS_FILE, [f"tasks.{name}: no such entry; it has {', '.join(params.tasks)}"])
    return params, params.tasks[name], task


def need(path: Path, stage: str) -> Path:
    """Return `path` if it exists, else say which stage makes it."""
    if not path.exists():
        raise MissingStep(path, stage)
    return path


def lock() -> Path:
    """Return the list of pinned packages, which every run record names.

    Raises:
        BadData: it is not here.
    """
    if not LOCK.is_file():
        raise BadData(LOCK, "the file does not exist; `git checkout requirements.txt` brings it back.")
    return LOCK


def need_sinks(params: Params) -> None:
    """Refuse to train towards a tracker that is not installed.

    Raises:
        NotReady: one is not.
    """
    absent = [name for name in params.tracking.sinks if importlib.util.find_spec(name) is None]
    if absent:
        raise NotReady(
            f'{", ".join(absent)} is not installed. Run `pip install "bilora[sinks]"`, or take it out of `tracking`.'
        )


def source(params: TaskParams, seed: int, task: Task) -> Source:
    """Build the source that a task's params name, for the rows that the task reads."""
    from bilora.sources import build_source

    return build_source(params.source, seed=seed, forms=task.forms, root=Path())


def sandbox(params: Params) -> AbstractContextManager[ProcessSandbox]:
    """Build the sandbox with a worker a core."""
    from bilora.sandbox import ProcessSandbox

    return ProcessSandbox(workers=os.cpu_count() or 1, allow_weak=params.sandbox.allow_weak)


def curated(params: Params, task: Task) -> list[Sample]:
    """Read the curated evaluation samples of one task; a task may have none."""
    from bilora.records import Drop

    path = Path(params.benchmark.eval_dataset)
    document = read_json(path)
    rows = document.get("samples") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise BadData(path, "must be an object with a list `samples`.")
    found = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "task" not in row:
            raise BadData(path, f"samples[{number}] must be an object that names its `task`.")
        if row["task"] == task.name:
            sample = task.sample(row)
            if isinstance(sample, Drop):
                raise BadData(path, f"samples[{number}] is refused by rule {sample.rule!r} ({sample.detail}).")
            found.append(sample)
    return found


def split(task: str, name: str) -> list[Sample]:
    """Read one split of one task."""
    from bilora.records import Sample

    return list(read_records(need(SPLITS / task / f"{name}.jsonl", f"data-split@{task}"), Sample))


def rated_pairs() -> RatedPairs:
    """Read what `bilora feedback pairs` wrote last; nothing was rated if it is not there."""
    from bilora.training_pairs import RatedPairs

    return read_record(RATED_PAIRS, RatedPairs) if RATED_PAIRS.exists() else RatedPairs()


def preferences(params: TaskParams, task: str) -> list[KtoPair] | list[DpoPair]:
    """Read the rows of a task's second phase."""
    from bilora.training_pairs import DpoPair, KtoPair

    path = need(SPLITS / task / "preference.jsonl", f"data-split@{task}")
    if params.split.preference == "kto":
        return list(read_records(path, KtoPair))
    return list(read_records(path, DpoPair)) if params.split.preference else []


def adapter(params: Params, task: str) -> Path:
    """Return the adapter's folder if it was made for this base.

    Raises:
        OtherBase: the adapter belongs to another base, or to this one with other files.
        BadData: its bytes are not those of its manifest.
    """
    from bilora.bases.loading import base_files, base_revision, changed_files
    from bilora.storage import sha256_file

    folder = need(ADAPTERS / task, f"train@{task}")
    manifest, config = read_json(folder / "manifest.json"), read_json(folder / "adapter_config.json")
    if not isinstance(config, dict) or not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise BadData(folder, f"is no adapter with a manifest; run `dvc repro -f train@{task}`.")
    base = params.base
    made_for = (manifest.get("base_id"), manifest.get("base_revision"))
    if made_for != (base.id, base_revision(base)) or config.get("base_model_name_or_path") != base.id:
        then = manifest.get("base_files") if made_for[0] == base.id else None
        version = f"with another {changed_files(then, base_files(base))}" if then else f"at {made_for[1]}"
        problem = f"this adapter was made for {made_for[0]} {version}; run `dvc repro train@{task}`."
        raise OtherBase(folder, problem)
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise BadData(folder / name, f"does not match its manifest; run `dvc repro -f train@{task}`.")
    return folder


def secret(endpoint: Endpoint, given: Mapping[str, str]) -> str | None:
    """Return an endpoint's key: the one that the command was given, else the environment's; None if there is none.

    Raises:
        BadData: it cannot be sent.
    """
    if endpoint.key_env is None:
        return None
    return clean_key(given.get(endpoint.key_env), endpoint.key_env) or environment_key(endpoint.key_env)


def environment_key(name: str) -> str | None:
    """Return the key that an environment variable holds; None if it is not set, or blank.

    Raises:
        BadData: it cannot be sent.
    """
    return clean_key(os.environ.get(name), name)


def endpoints(params: Params, given: Mapping[str, str]) -> tuple[dict[str, Engine], dict[str, str]]:
    """Build the engines of all endpoints that can be asked, and say why the others are left out."""
    from bilora.inference.endpoint.engine import EndpointEngine

    engines: dict[str, Engine] = {}
    left_out = {}
    for endpoint in params.endpoints:
        key = secret(endpoint, given)
        if endpoint.key_env is not None and key is None:
            left_out[endpoint.name] = f"{endpoint.key_env} is not set"
        else:
            engines[endpoint.name] = EndpointEngine(endpoint, key, cache=Path(".cache/answers"))
    return engines, left_out


def judge(params: Params, given: Mapping[str, str]) -> tuple[Judge | None, str]:
    """Build the judge, or say why there is none."""
    if params.judge is None:
        return None, "no judge is configured"
    key = secret(params.judge, given)
    if params.judge.key_env is not None and key is None:
        return None, f"{params.judge.key_env} is not set"
    from bilora.inference.endpoint.engine import EndpointEngine
    from bilora.metrics.judged import EndpointJudge

    engine = EndpointEngine(params.judge, key)
    made = EndpointJudge(
        engine.chat, model=params.judge.model, cache=Path(".cache/judge"), remarks=lambda: engine.remarks
    )
    return made, ""


def missing_models(endpoints: Sequence[Endpoint], given: Mapping[str, str]) -> dict[str, str]:
    """Ask endpoints for their models; return by name what to say of those that list models, but not theirs."""
    from bilora.inference.endpoint.engine import EndpointEngine

    found = {}
    for endpoint in endpoints:
        with EndpointEngine(endpoint, secret(endpoint, given)) as engine:
            if missing := engine.missing_model():
                found[endpoint.name] = missing
    return found


def judge_remarks(params: Params) -> list[str]:
    """Say what has to be known of the judge to read its grades."""
    from bilora.metrics.judged import family
    from bilora.records import JudgeCheck

    if params.judge is None:
        return []
    model = params.judge.model
    contestants = [params.base.id, *(endpoint.model for endpoint in params.endpoints)]
    remarks = [
        f"The judge {model} is of one family with the contestant {one}, and may favour it."
        for one in contestants
        if family(one) == family(model)
    ]
    check = JudgeCheck.model_validate(read_json(JUDGE_CHECK)) if JUDGE_CHECK.exists() else None
    if check is None or check.model != model:
        return [*remarks, f"The judge {model} was not checked; `bilora judge check` does."]
    return [*remarks, f"Judge check: {check.told()}"]


def hub_token() -> str | None:
    """Return HF_TOKEN, or what a CI's identity is exchanged for where HF_OIDC_RESOURCE asks for that; else None.

    Raises:
        BadData: the token cannot be sent.
        Unreachable: the exchange was asked for and failed.
    """
    token = environment_key("HF_TOKEN")
    if token or not os.environ.get("HF_OIDC_RESOURCE"):
        return token
    from huggingface_hub import get_token
    from huggingface_hub.errors import OIDCError

    from bilora.hub.client import FAULTS, why

    try:
        return get_token()
    except (OIDCError, *FAULTS) as error:
        raise Unreachable(f"The hub gave no token for HF_OIDC_RESOURCE ({why(error)}); set HF_TOKEN instead.") from None


def quiet_libraries() -> None:
    """Keep the model libraries from talking; faults still raise."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with contextlib.suppress(ImportError):  # the page does without it
        import datasets

        datasets.disable_progress_bars()
