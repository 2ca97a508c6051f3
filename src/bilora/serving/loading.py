"""vLLM's /v1/load_lora_adapter and /v1/unload_lora_adapter, for adapters in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bilora.errors import BiloraError
from bilora.protocols import BatchEngine
from bilora.serving.replies import ApiError, ApiObject
from bilora.serving.wire import StrictModel, Utf8Text
from bilora.storage import ADAPTER_FILES

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class LoadRequest(StrictModel):
    """An adapter's name, and its folder: absolute or relative to the root."""

    lora_name: _Name
    lora_path: Annotated[Utf8Text, Field(min_length=1, max_length=4096)]
    load_inplace: bool = False


class UnloadRequest(StrictModel):
    """The name of an adapter that was loaded by a request."""

    lora_name: _Name
    lora_int_id: int | None = None


class AdapterLoader:
    """Loads adapters from folders under a root, and unloads only those."""

    def __init__(self, engine: BatchEngine, root: Path) -> None:
        self._engine = engine
        self._root = root.resolve()
        self._loaded: set[str] = set()

    def load(self, body: LoadRequest) -> ApiObject:
        """Load an adapter for later requests; return a model object with its sha256.

        Raises:
            ApiError: the name is used, the folder is not under the root, or its adapter does not match the base.
        """
        name = body.lora_name
        if name in self._engine.models() and not (body.load_inplace and name in self._loaded):
            advice = "set load_inplace: true to replace it" if name in self._loaded else "choose another name"
            raise ApiError(400, f"The model {name!r} is served already; {advice}.", "invalid_value", param="lora_name")
        folder = (self._root / body.lora_path).resolve()  # a symbolic link must not lead outside of the root
        if not folder.is_relative_to(self._root) or not folder.is_dir():
            problem = f"{body.lora_path[:200]!r} is not a folder that adapters may be loaded from."
            raise ApiError(404, problem, "adapter_not_found", param="lora_path")
        if absent := [file for file in ADAPTER_FILES if not (folder / file).is_file()]:
            raise ApiError(400, f"The folder has no {' and no '.join(absent)}.", "invalid_value", param="lora_path")
        try:
            self._engine.load_adapter(name, folder)
        except (BiloraError, OSError) as error:
            reason = str(error).replace(f"{self._root}/", "")
            raise ApiError(400, f"The adapter cannot be loaded: {reason}", "invalid_value", param="lora_path") from None
        self._loaded.add(name)
        return {"id": name, "object": "model", "parent": "base", "sha256": self._engine.models()[name]}

    def unload(self, body: UnloadRequest) -> ApiObject:
        """Unload an adapter; accepted requests still finish with it.

        Raises:
            ApiError: no adapter was loaded with this name.
        """
        name = body.lora_name
        if name not in self._loaded:
            raise ApiError(404, f"No request has loaded an adapter {name!r}.", "model_not_found", param="lora_name")
        self._loaded.discard(name)
        self._engine.unload_adapter(name)
        return {"id": name, "object": "model", "deleted": True}
