"""/v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them, for adapters in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bilora.errors import BiloraError
from bilora.protocols import BatchEngine
from bilora.serving.replies import ApiError, ApiObject
from bilora.serving.wire import StrictModel, WireText
from bilora.storage import ADAPTER_FILES

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class LoadRequest(StrictModel):
    """An adapter's name, and its folder: absolute, or as seen from the folder that adapters may come from."""

    lora_name: _Name
    lora_path: Annotated[WireText, Field(min_length=1, max_length=4096)]
    load_inplace: bool = False


class UnloadRequest(StrictModel):
    """The name of an adapter that was loaded so."""

    lora_name: _Name
    lora_int_id: int | None = None


class AdapterLoader:
    """Loads adapters from folders under a root, and unloads those and no others."""

    def __init__(self, engine: BatchEngine, root: Path) -> None:
        self._engine = engine
        self._root = root.resolve()
        self._loaded: set[str] = set()

    def load(self, body: LoadRequest) -> ApiObject:
        """Serve an adapter from the next request on; return its sha256.

        Raises:
            ApiError: the name is taken, or the folder lies outside of the root, is none, or holds no adapter that fits.
        """
        name = body.lora_name
        if name in self._engine.models() and not (body.load_inplace and name in self._loaded):
            again = "set load_inplace: true to replace it" if name in self._loaded else "choose another name"
            raise ApiError(400, f"The model {name!r} is served already; {again}.", "invalid_value", param="lora_name")
        folder = (self._root / body.lora_path).resolve()  # without links: nothing outside is reached through one
        if not folder.is_relative_to(self._root) or not folder.is_dir():
            problem = f"{body.lora_path[:200]!r} is no folder that adapters may come from."
            raise ApiError(404, problem, "adapter_not_found", param="lora_path")
        if absent := [file for file in ADAPTER_FILES if not (folder / file).is_file()]:
            raise ApiError(400, f"The folder has no {' and no '.join(absent)}.", "invalid_value", param="lora_path")
        try:
            self._engine.load_adapter(name, folder)
        except (BiloraError, OSError) as error:
            reason = str(error).replace(f"{self._root}/", "")
            raise ApiError(400, f"The adapter cannot be served: {reason}", "invalid_value", param="lora_path") from None
        self._loaded.add(name)
        return {"id": name, "object": "model", "parent": "base", "sha256": self._engine.models()[name]}

    def unload(self, body: UnloadRequest) -> ApiObject:
        """Serve an adapter no longer; what has begun is finished.

        Raises:
            ApiError: no adapter was loaded under this name.
        """
        name = body.lora_name
        if name not in self._loaded:
            raise ApiError(
                404, f"No adapter was loaded as {name!r} by a request.", "model_not_found", param="lora_name"
            )
        self._loaded.discard(name)
        self._engine.unload_adapter(name)
        return {"id": name, "object": "model", "deleted": True}
