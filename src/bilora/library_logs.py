"""The logs and progress bars of the model libraries."""

from __future__ import annotations

import contextlib
import os
import warnings


def silence_libraries() -> None:
    """Turn off the logs and progress bars of transformers and datasets."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with contextlib.suppress(ImportError):  # the page is installed without datasets
        import datasets

        datasets.disable_progress_bars()
