"""Start a command once per device, and join such processes together."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from uuid import uuid4


def start_ranks(count: int, arguments: Sequence[str]) -> int:
    """Run a command of bilora in `count` processes, each a rank with a device of its own; return its exit code.

    If one of them ends with an error, the others are ended, and its exit code is returned.

    Raises:
        NotReady: the machine has fewer GPUs.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from bilora.errors import NotReady

    if torch.cuda.is_available() and torch.cuda.device_count() < count:
        raise NotReady(f"--devices {count}: this machine has {torch.cuda.device_count()} GPUs.")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(uuid4()),
        rdzv_endpoint="localhost:0",
        rdzv_backend="c10d",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "bilora", *arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return int(failure.exitcode) if failure.exitcode > 0 else 128 - int(failure.exitcode)
    return 0


def is_started_rank() -> bool:
    """Return whether torchrun started this process."""
    return "RANK" in os.environ


def join_and_report() -> bool:
    """Connect this process with the others that torchrun started, if it did; return whether it reports progress."""
    from bilora.training import ranks

    ranks.join_ranks()
    return ranks.is_first()
