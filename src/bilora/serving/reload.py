"""Load new adapter versions while the server runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from bilora.errors import BiloraError
from bilora.protocols import BatchEngine
from bilora.storage import adapter_sha256

LOG = logging.getLogger(__name__)


class Reloader:
    """Compares the adapters' folders with the loaded versions, and loads new versions for later requests.

    Accepted requests keep their version. A version that cannot be loaded is logged once, and the version before stays
    loaded. Adapters that were loaded otherwise are not changed.
    """

    def __init__(
        self,
        engine: BatchEngine,
        *,
        version: str,
        read_version: Callable[[], str],
        find_adapters: Callable[[], Mapping[str, Path]],
        unload: bool,
    ) -> None:
        """Reload the adapters of `engine`.

        Args:
            version: identifies the loaded adapters.
            read_version: returns the version in the folders; called every second, so it must be fast.
            find_adapters: returns the folders of all adapters to serve (name → folder), verified.
            unload: unload adapters that `find_adapters` no longer returns. Set for bundles, whose manifests are
                complete; not for a checkout, where DVC removes an adapter's folder while it trains a new version.
        """
        self._engine = engine
        self._read_version = read_version
        self._find_adapters = find_adapters
        self._version = version
        self._unload = unload
        self._known = set(engine.models())

    def reload(self) -> int:
        """Load and unload adapters that have changed; return their number."""
        version = self._version
        try:
            version = self._read_version()
            if version == self._version:
                return 0
            return self._apply(self._find_adapters())
        except Exception as error:  # any error: the next version may load
            expected = isinstance(error, BiloraError | OSError)
            LOG.warning("The new adapters are not loaded, the old ones stay: %s", error, exc_info=not expected)
            return 0
        finally:
            self._version = version

    def _apply(self, folders: Mapping[str, Path]) -> int:
        served = {name: sha256 for name, sha256 in self._engine.models().items() if sha256}
        changed = {name: folder for name, folder in folders.items() if served.get(name) != adapter_sha256(folder)}
        for name, folder in changed.items():
            self._engine.load_adapter(name, folder)
        removed = (served.keys() & self._known) - folders.keys() if self._unload else ()
        self._known = set(folders)
        for name in removed:
            LOG.warning("The adapter %s is unloaded: the bundle no longer has it.", name)
            self._engine.unload_adapter(name)
        return len(changed) + len(removed)
