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
    """Compares the adapters' folders with what is served, and serves new versions from the next request on.

    Requests that run or wait end with the version that they were accepted for. A version that cannot be used is logged
    once, and the version before is still served.
    """

    def __init__(
        self,
        engine: BatchEngine,
        *,
        version: str,
        read_version: Callable[[], str],
        find: Callable[[], Mapping[str, Path]],
        unload: bool,
    ) -> None:
        """Reload the adapters of `engine`.

        Args:
            version: identifies the adapters that the engine has loaded.
            read_version: identifies the adapters in the folders; cheap, because it is called every second.
            find: returns the folders of the adapters that are to be served, their bytes checked.
            unload: unload adapters that `find` no longer returns. A bundle's manifest says what is in it, while DVC
                removes an adapter's folder as long as it trains the next version.

        Adapters that were loaded otherwise are left alone.
        """
        self._engine = engine
        self._read_version = read_version
        self._find = find
        self._version = version
        self._unload = unload
        self._found = set(engine.models())

    def reload(self) -> int:
        """Load and unload what has changed; return how many adapters did."""
        version = self._version
        try:
            version = self._read_version()
            if version == self._version:
                return 0
            return self._apply(self._find())
        except Exception as error:  # of any kind: the next version may be better
            known = isinstance(error, BiloraError | OSError)
            LOG.warning("The new adapters are not served, the old ones still are: %s", error, exc_info=not known)
            return 0
        finally:
            self._version = version

    def _apply(self, folders: Mapping[str, Path]) -> int:
        served = {name: sha256 for name, sha256 in self._engine.models().items() if sha256}
        changed = {name: folder for name, folder in folders.items() if served.get(name) != adapter_sha256(folder)}
        for name, folder in changed.items():
            self._engine.load_adapter(name, folder)
        gone = (served.keys() & self._found) - folders.keys() if self._unload else ()
        self._found = set(folders)
        for name in gone:
            LOG.warning("The adapter %s is in the bundle no longer and not served any more.", name)
            self._engine.unload_adapter(name)
        return len(changed) + len(gone)
