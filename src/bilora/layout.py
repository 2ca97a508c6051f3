"""The paths of the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """All paths of the workspace at `root`; `task` is the name of a task."""

    root: Path

    @property
    def params_file(self) -> Path:
        """The params of the profile in use."""
        return self.root / "params.yaml"

    @property
    def profiles(self) -> Path:
        """The folder of profiles, one YAML file each."""
        return self.root / "profiles"

    @property
    def lock(self) -> Path:
        """The lock file of the Python packages."""
        return self.root / "requirements.txt"

    @property
    def page_script(self) -> Path:
        """The script that Streamlit runs."""
        return self.root / "hf_space" / "app.py"

    def raw(self, task: str) -> Path:
        """The raw rows of a task's source."""
        return self.root / "data" / "raw" / f"{task}.jsonl"

    def samples(self, task: str) -> Path:
        """The samples that data-process wrote."""
        return self.root / "data" / "samples" / f"{task}.jsonl"

    def drop_report(self, stage: str, task: str) -> Path:
        """The report of a stage (process, split) on dropped rows, by rule."""
        return self.root / "data" / "reports" / stage / f"{task}.json"

    def split(self, task: str, name: str) -> Path:
        """One split of a task: train, validation, test, or the rated pairs in preference."""
        return self.root / "data" / "splits" / task / f"{name}.jsonl"

    def adapter(self, task: str) -> Path:
        """The folder of a task's trained adapter."""
        return self.root / "adapters" / task

    def checkpoints(self, name: str) -> Path:
        """The checkpoint folder of an unfinished training."""
        return self.root / "checkpoints" / name

    @property
    def runs(self) -> Path:
        """The folder with one folder per training run."""
        return self.root / "runs"

    def train_metrics(self, task: str) -> Path:
        """The metrics of a task's last training."""
        return self.root / "metrics" / "train" / f"{task}.json"

    @property
    def training_metrics(self) -> Path:
        """The metrics of the last training of all tasks."""
        return self.root / "training_metrics.json"

    def loss_plot(self, task: str) -> Path:
        """Training loss by step."""
        return self.root / "plots" / "train" / f"{task}.json"

    def validation_plot(self, task: str) -> Path:
        """Validation metric by step."""
        return self.root / "plots" / "validation" / f"{task}.json"

    def sweep(self, task: str) -> Path:
        """The results of a task's last sweep."""
        return self.root / "sweeps" / f"{task}.json"

    def evaluation(self, task: str) -> Path:
        """All completions of a task's evaluation, with their scores."""
        return self.root / "evaluation" / f"{task}.jsonl"

    @property
    def results(self) -> Path:
        """The results and verdicts of the last benchmark."""
        return self.root / "benchmarking" / "results.json"

    @property
    def benchmark_metrics(self) -> Path:
        """The means of the last benchmark, for DVC."""
        return self.root / "metrics" / "benchmark.json"

    @property
    def report(self) -> Path:
        """The HTML report of the last benchmark."""
        return self.root / "report.html"

    @property
    def baseline(self) -> Path:
        """The scores of the promoted adapters."""
        return self.root / "benchmarking" / "baseline.json"

    @property
    def history(self) -> Path:
        """One line per promotion."""
        return self.root / "benchmarking" / "history.jsonl"

    @property
    def judge_check(self) -> Path:
        """The last result of `bilora judge check`."""
        return self.root / "benchmarking" / "judge_check.json"

    @property
    def hub(self) -> Path:
        """The folder to publish to if there is no token for the hub."""
        return self.root / "hub"

    @property
    def feedback(self) -> Path:
        """The folder of all feedback."""
        return self.root / "data" / "feedback"

    @property
    def outbox(self) -> Path:
        """The database of the ratings on this machine."""
        return self.feedback / "outbox.sqlite3"

    @property
    def shards(self) -> Path:
        """The default destination of exported ratings."""
        return self.feedback / "shards"

    @property
    def rated_pairs(self) -> Path:
        """The training pairs made from ratings."""
        return self.feedback / "training_pairs.json"

    @property
    def all_feedback(self) -> Path:
        """All valid ratings, in one file."""
        return self.feedback / "all_feedback.json"

    def cache(self, name: str) -> Path:
        """A cache folder: bundles, gguf, answers or judge. It can be deleted at any time."""
        return self.root / ".cache" / name
