"""Taking up new adapter versions while the server runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from bilora.errors import BiloraError
from bilora.protocols import BatchEngine
from bilora.storage import adapter_sha256

LOG = logging.getLogger(__name__)


class Reloader:
    """Looks whether other adapters lie there, and serves them from the next request on.

    Requests that have begun, or wait, end with the version they were accepted for. A version that cannot
    be used is told once in the log, and what was served before still is.
    """

    def __init__(
        self,
        engine: BatchEngine,
        *,
        seen: str,
        mark: Callable[[], str],
        find: Callable[[], Mapping[str, Path]],
        retire: bool,
    ) -> None:
        """Watch on behalf of `engine`.

        Args:
            seen: the mark of what it has loaded.
            mark: changes when the adapters do; cheap, for it is called every second.
            find: returns the folders of the adapters that are to be served, their bytes checked.
            retire: serve no longer what `find` names no longer. A bundle's manifest says what is in it, while
                DVC takes an adapter's folder away for as long as it trains the next version.
        """
        self._engine = engine
        self._mark = mark
        self._find = find
        self._seen = seen
        self._retire = retire

    def look(self) -> int:
        """Take up what has changed; return how many adapters did."""
        mark = self._seen
        try:
            mark = self._mark()
            if mark == self._seen:
                return 0
            return self._take_up(self._find())
        except Exception as fault:  # whatever it was, the next version may be better
            known = isinstance(fault, BiloraError | OSError)
            LOG.warning("The new adapters are not served, the old ones still are: %s", fault, exc_info=not known)
            return 0
        finally:
            self._seen = mark

    def _take_up(self, folders: Mapping[str, Path]) -> int:
        served = {name: sha256 for name, sha256 in self._engine.models().items() if sha256}
        changed = {name: folder for name, folder in folders.items() if served.get(name) != adapter_sha256(folder)}
        for name, folder in changed.items():
            self._engine.load_adapter(name, folder)
        gone = served.keys() - folders.keys() if self._retire else ()
        for name in gone:
            LOG.warning("The adapter %s is in the bundle no longer and not served any more.", name)
            self._engine.unload_adapter(name)
        return len(changed) + len(gone)
