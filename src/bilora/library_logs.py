"""What the model libraries print by themselves."""

from __future__ import annotations

import contextlib
import os
import warnings


def silence_libraries() -> None:
    """Turn off the logs and progress bars of transformers and datasets; their errors still raise."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with contextlib.suppress(ImportError):  # the page does without it
        import datasets

        datasets.disable_progress_bars()
