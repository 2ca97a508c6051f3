"""Build the objects that params.yaml describes: base, sources, sandbox, engine, judge, hub."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.api_keys import endpoint_key
from bilora.errors import BadData, BaseMismatch, ParamsError
from bilora.layout import Layout
from bilora.params import Params, TaskParams, read_params
from bilora.protocols import ProgressBars, no_bar
from bilora.storage import read_record, read_records, require_file, sha256_file

if TYPE_CHECKING:
    from bilora.bases.base import Base
    from bilora.bases.loading import LoadedBase
    from bilora.data.training_rows import TrainingRows
    from bilora.inference.engines import LocalEngine
    from bilora.protocols import Engine, Hub, Judge, Source
    from bilora.records import Sample
    from bilora.sandbox import ProcessSandbox
    from bilora.tasks.task import Task
    from bilora.training.context import OnStep, TrainingContext
    from bilora.training.joint_training import JointTraining
    from bilora.training_pairs import RatedPairs


class Factories(Layout):
    """Reads the params of a workspace and builds its tasks, base, engine, sandbox, judge and hub.

    All methods raise a BiloraError whose message names the file and says what to do.
    """

    # Params and tasks

    @cached_property
    def params(self) -> Params:
        """The params of the workspace, validated; their tasks exist."""
        return self.read_params(self.params_file)

    def read_params(self, path: Path) -> Params:
        """Read params.yaml or a profile."""
        from bilora.guards import known_guards
        from bilora.tasks import known_tasks

        guarded = {name: guard.task for name, guard in known_guards().items()}
        return read_params(path, known_tasks=known_tasks(), known_guards=guarded)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks of params.yaml."""
        from bilora.tasks import load_task

        return {name: load_task(name) for name in self.params.tasks}

    def task(self, name: str) -> tuple[TaskParams, Task]:
        """Return the params and the definition of one task.

        Raises:
            UnknownTask: no module defines the task.
            ParamsError: params.yaml has no entry of that name.
        """
        from bilora.tasks import load_task

        params, task = self.params, load_task(name)
        if name not in params.tasks:
            raise ParamsError(self.params_file, [f"tasks.{name}: no such entry; it has {', '.join(params.tasks)}"])
        return params.tasks[name], task

    # The base

    def base(self, params: Params | None = None) -> Base:
        """Return the base that `params` (default: params.yaml) describe; this reads none of its files."""
        from bilora.bases.base import open_base

        return open_base((params or self.params).base, self.root)

    # Data

    def source(self, name: str) -> Source:
        """Build the source of a task's rows."""
        from bilora.sources.source import build_source

        params, task = self.task(name)
        return build_source(params.source, seed=self.params.seed, forms=task.forms, root=self.root)

    def curated_samples(self, task: Task) -> list[Sample]:
        """Read the curated evaluation samples of one task; a task may have none."""
        from bilora.data.curated import read_curated

        return read_curated(self.root / self.params.benchmark.eval_dataset, task)

    def guard_samples(self, task: Task) -> dict[str, list[Sample]]:
        """Read the samples of one task's guards, keyed by guard.

        Raises:
            NotReady, BadData: see `Guard.samples`.
        """
        from bilora.guards import task_guards

        return {name: guard.samples(task) for name, guard in task_guards(self.params, task.name).items()}

    def split_samples(self, task: str, name: str) -> list[Sample]:
        """Read one split of one task."""
        from bilora.records import Sample

        return list(read_records(require_file(self.split(task, name), f"data-split@{task}"), Sample))

    def read_rated_pairs(self) -> RatedPairs:
        """Read the pairs of the last `bilora feedback pairs`; none if the file does not exist."""
        from bilora.training_pairs import RatedPairs

        return read_record(self.rated_pairs, RatedPairs) if self.rated_pairs.exists() else RatedPairs()

    def lock_sha256(self) -> str:
        """Return the SHA-256 of requirements.txt, which every run record contains.

        Raises:
            BadData: the file does not exist.
        """
        if not self.lock.is_file():
            raise BadData(self.lock, "the file does not exist; `git checkout requirements.txt` restores it.")
        return sha256_file(self.lock)

    # Sandbox, adapters, engine, training

    def sandbox(self) -> ProcessSandbox:
        """Build the sandbox with one worker per core."""
        from bilora.sandbox import ProcessSandbox

        return ProcessSandbox(workers=os.cpu_count() or 1, allow_weak=self.params.sandbox.allow_weak)

    def checked_adapter(self, task: str) -> Path:
        """Return the folder of a task's adapter after checking its base and its digest.

        Raises:
            MissingStep: the adapter does not exist.
            BaseMismatch: it was trained on another base, or on other files of this base.
            BadData: its bytes differ from its manifest.
        """
        from bilora.bases.compatibility import check_adapter

        folder = require_file(self.adapter(task), f"train@{task}")
        check_adapter(folder, self.base(), stage=f"train@{task}")
        return folder

    def compatible_adapters(self) -> Iterator[tuple[str, Path | BaseMismatch]]:
        """Yield each task that has an adapter with the adapter's folder, or with the reason why the base differs."""
        for name in self.params.tasks:
            if self.adapter(name).exists():
                try:
                    yield name, self.checked_adapter(name)
                except BaseMismatch as error:
                    yield name, error

    def bundle(self, location: str) -> dict[str, Path]:
        """Return the folders of a published bundle's adapters for the tasks of this workspace.

        Args:
            location: a bundle's folder; the folder or the URL that `push-adapters` publishes into, for its current
                version; or a hub id with `@` and a commit.

        Raises:
            BadData: it is not a bundle, was trained on another base, or its bytes differ from its manifest.
            Unreachable: it could not be downloaded.
        """
        from bilora.publishing.published import open_bundle

        folders = open_bundle(location, self.base(), cache_dir=self.cache("bundles"))
        return {name: folder for name, folder in folders.items() if name in self.params.tasks}

    def adapters_version(self, location: str | None) -> str:
        """Return a text that changes when the adapters change: the workspace's, or those of a bundle in a folder."""
        from bilora.publishing.published import current_version

        if location is None:
            folders = [self.adapter(name) for name in self.params.tasks]
        else:
            folders = [current_version(Path(location)) or Path(location)]
        manifests = [folder / "manifest.json" for folder in folders]
        return " ".join(_file_version(manifest) if manifest.exists() else "-" for manifest in manifests)

    def load_engine(
        self,
        adapters: Mapping[str, Path],
        *,
        batch_size: int,
        max_waiting: int | None = None,
        bars: ProgressBars = no_bar,
    ) -> LocalEngine:
        """Load the base and adapters (task name → folder) into the engine that `inference.engine` selects."""
        from bilora.inference.engines import EngineOptions, load_local_engine
        from bilora.library_logs import silence_libraries

        silence_libraries()
        settings = self.params.inference
        options = EngineOptions(
            batch_size=batch_size,
            max_waiting=max_waiting,
            quantization=settings.quantization,
            cache=self.cache("gguf"),
            progress_bars=bars,
        )
        return load_local_engine(settings.engine, self.base(), adapters, options)

    def training_context(
        self,
        name: str,
        rows: TrainingRows,
        loaded: LoadedBase,
        sandbox: ProcessSandbox,
        *,
        on_step: OnStep,
        bars: ProgressBars = no_bar,
        joint: JointTraining | None = None,
        folder: Path | None = None,
    ) -> TrainingContext:
        """Build the context of a task's training.

        Args:
            loaded: the base; several trainings need a copy each (`shared_copy`).
            on_step: called after every optimizer step and every evaluation.
            bars: show the progress of validation.
            joint: the joint training that this training is part of; None if it runs alone.
            folder: of the checkpoints; by default the task's.
        """
        from bilora.evaluation.validation import ValidationScorer
        from bilora.protocols import Referees
        from bilora.training.context import TrainingContext

        params, (task_params, task) = self.params, self.task(name)
        base = self.base()
        return TrainingContext(
            task=task,
            params=task_params,
            base=base,
            base_settings=params.base,
            base_revision=base.identity,
            loaded=loaded,
            scorer=ValidationScorer(task, loaded, Referees(sandbox=sandbox)),
            seed=params.seed,
            folder=folder or self.checkpoints(name),
            train_samples=rows.train,
            validation_samples=rows.validation,
            pairs=rows.pairs,
            sinks=params.tracking.sinks,
            on_step=on_step,
            bars=bars,
            joint=joint,
        )

    # External services

    def endpoints(self, keys: Mapping[str, str]) -> tuple[dict[str, Engine], dict[str, str]]:
        """Return the engines of all endpoints with a key, and the reason per skipped endpoint.

        Args:
            keys: API keys of the command line, keyed by environment variable.
        """
        from bilora.inference.endpoint.engine import EndpointEngine

        engines: dict[str, Engine] = {}
        skipped = {}
        for endpoint in self.params.endpoints:
            key = endpoint_key(endpoint.key_env, keys)
            if endpoint.key_env is not None and key is None:
                skipped[endpoint.name] = f"{endpoint.key_env} is not set"
            else:
                engines[endpoint.name] = EndpointEngine(endpoint, key, cache=self.cache("answers"))
        return engines, skipped

    def judge(self, keys: Mapping[str, str]) -> tuple[Judge | None, str]:
        """Return the judge and an empty reason, or None and the reason."""
        settings = self.params.judge
        if settings is None:
            return None, "no judge is configured"
        key = endpoint_key(settings.key_env, keys)
        if settings.key_env is not None and key is None:
            return None, f"{settings.key_env} is not set"
        from bilora.inference.endpoint.engine import EndpointEngine
        from bilora.metrics.judged import EndpointJudge

        engine = EndpointEngine(settings, key)
        judge = EndpointJudge(
            engine.chat, model=settings.model, cache=self.cache("judge"), remarks=lambda: engine.remarks
        )
        return judge, ""

    def judge_remarks(self) -> list[str]:
        """Return remarks that help to interpret the judge's grades."""
        from bilora.evaluation.judge_remarks import judge_remarks
        from bilora.records import JudgeCheck

        check = read_record(self.judge_check, JudgeCheck) if self.judge_check.exists() else None
        return judge_remarks(self.params, self.base().id, check)

    def hub_to_publish(self) -> tuple[Hub, str | None]:
        """Return the hub of params.yaml, and its repository's id if it is on the Hugging Face hub.

        Without a token, bundles for the Hugging Face hub are written to the folder hub/ instead.
        """
        from bilora.publishing.hubs import open_hub

        return open_hub(self.params.hub, root=self.root, fallback=self.hub)


def _file_version(path: Path) -> str:
    stat = path.stat()
    return f"{path.parent.name}.{stat.st_ino}.{stat.st_mtime_ns}.{stat.st_size}"
