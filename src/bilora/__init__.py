"""BiLoRA: an adapter factory. One frozen base model, one small LoRA adapter per task.

The public API:
    Workspace   a project folder: train its adapters
    Bundle      published adapters with their base: generate completions
    Sandbox     run code that you do not trust
    compare     compare two measurements of the same adapters
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilora.bundle import Bundle as Bundle
    from bilora.errors import BiloraError as BiloraError
    from bilora.evaluation.compare import compare as compare
    from bilora.sandbox import ProcessSandbox as Sandbox
    from bilora.workspace import Workspace as Workspace

__version__ = "0.2.0"
__all__ = ["BiloraError", "Bundle", "Sandbox", "Workspace", "__version__", "compare"]

_MODULES = {
    "BiloraError": ("bilora.errors", "BiloraError"),
    "Bundle": ("bilora.bundle", "Bundle"),
    "Sandbox": ("bilora.sandbox", "ProcessSandbox"),
    "Workspace": ("bilora.workspace", "Workspace"),
    "compare": ("bilora.evaluation.compare", "compare"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import bilora` is quick."""
    if name not in _MODULES:
        raise AttributeError(f"module 'bilora' has no attribute {name!r}")
    module, attribute = _MODULES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
