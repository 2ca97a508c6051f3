"""Where everything of a checkout is, below its root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Every path of the checkout at `root`; a method's `task` is the task's name."""

    root: Path

    @property
    def params_file(self) -> Path:
        """The profile in use."""
        return self.root / "params.yaml"

    @property
    def profiles(self) -> Path:
        """The folder of profiles, one YAML file each."""
        return self.root / "profiles"

    @property
    def lock(self) -> Path:
        """The pinned packages."""
        return self.root / "requirements.txt"

    @property
    def page(self) -> Path:
        """The script that Streamlit runs."""
        return self.root / "hf_space" / "app.py"

    def raw(self, task: str) -> Path:
        """Rows as their source delivered them."""
        return self.root / "data" / "raw" / f"{task}.jsonl"

    def samples(self, task: str) -> Path:
        """Samples that data-process kept."""
        return self.root / "data" / "samples" / f"{task}.jsonl"

    def drop_report(self, stage: str, task: str) -> Path:
        """What data-process or data-split (`stage`: process, split) dropped, and why."""
        return self.root / "data" / "reports" / stage / f"{task}.json"

    def split(self, task: str, name: str) -> Path:
        """One split of a task: train, validation, test, or the rated pairs in preference."""
        return self.root / "data" / "splits" / task / f"{name}.jsonl"

    def adapter(self, task: str) -> Path:
        """The folder of a task's trained adapter."""
        return self.root / "adapters" / task

    def checkpoints(self, name: str) -> Path:
        """The folder of an unfinished training's checkpoints."""
        return self.root / "checkpoints" / name

    @property
    def runs(self) -> Path:
        """One folder per training run."""
        return self.root / "runs"

    def train_metrics(self, task: str) -> Path:
        """The numbers of a task's last training."""
        return self.root / "metrics" / "train" / f"{task}.json"

    @property
    def training_metrics(self) -> Path:
        """The numbers of all tasks' last trainings."""
        return self.root / "training_metrics.json"

    def loss_plot(self, task: str) -> Path:
        """Training loss by step."""
        return self.root / "plots" / "train" / f"{task}.json"

    def validation_plot(self, task: str) -> Path:
        """Validation metric by step."""
        return self.root / "plots" / "validation" / f"{task}.json"

    def sweep(self, task: str) -> Path:
        """What the last sweep of a task's settings found."""
        return self.root / "sweeps" / f"{task}.json"

    def evaluation(self, task: str) -> Path:
        """Every answer with its scores."""
        return self.root / "evaluation" / f"{task}.jsonl"

    @property
    def results(self) -> Path:
        """What the last benchmark measured, with its verdicts."""
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
        """The promoted adapters' scores."""
        return self.root / "benchmarking" / "baseline.json"

    @property
    def history(self) -> Path:
        """One line per promotion."""
        return self.root / "benchmarking" / "history.jsonl"

    @property
    def judge_check(self) -> Path:
        """How the judge did where the right grade is known."""
        return self.root / "benchmarking" / "judge_check.json"

    @property
    def hub(self) -> Path:
        """The folder that is published into where no token for the hub is set."""
        return self.root / "hub"

    @property
    def feedback(self) -> Path:
        """The folder of all feedback."""
        return self.root / "data" / "feedback"

    @property
    def outbox(self) -> Path:
        """The database of this machine's ratings."""
        return self.feedback / "outbox.sqlite3"

    @property
    def shards(self) -> Path:
        """Where ratings are exported to unless another destination is named."""
        return self.feedback / "shards"

    @property
    def rated_pairs(self) -> Path:
        """The training pairs that ratings gave."""
        return self.feedback / "training_pairs.json"

    @property
    def all_feedback(self) -> Path:
        """All ratings that count, in one file."""
        return self.feedback / "all_feedback.json"

    def cache(self, name: str) -> Path:
        """A folder that may be deleted at any time: bundles, gguf, answers, judge."""
        return self.root / ".cache" / name
