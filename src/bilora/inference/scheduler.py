"""One thread turns the batch, token by token, for everybody who asks."""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from bilora.errors import BadData, Busy
from bilora.inference.decoder import Row
from bilora.records import Completion

LOG = logging.getLogger(__name__)

PROMPT_TOKENS = 4096
"""So many prompt tokens, padding counted, are read between two steps at most: running answers have to wait."""


class Batch(Protocol):
    """What the loop turns. Each engine has one of its own."""

    capacity: int
    rows: list[Row[Any]]
    apart: bool
    """Whether each adapter's rows have a room of their own, so that others may pass one that waits for it."""

    def fits(self, row: Row[Any], joining: Sequence[Row[Any]]) -> bool:
        """Whether there is room for the row beside those that are there and `joining`; alone it always fits."""
        ...

    def join(self, rows: Sequence[Row[Any]]) -> None:
        """Begin new rows' answers: each has its first token afterwards."""
        ...

    def step(self) -> None:
        """Give every row its next token."""
        ...

    def leave(self, row: Row[Any]) -> None:
        """Take a row out."""
        ...

    def clear(self) -> None:
        """Take all rows out after a fault."""
        ...

    def completion(self, row: Row[Any]) -> Completion:
        """Return a finished row's answer."""
        ...


class Loop:
    """Lets waiting rows join between two tokens, and finished or cancelled ones leave.

    Systems take turns: each of them waits in a line of its own, so a flood for one adapter does not hold up
    the others. The thread lives only while there is work; there is nothing to close.
    """

    def __init__(self, batch: Batch, *, max_waiting: int | None = None) -> None:
        self._batch = batch
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._lines: OrderedDict[str, deque[Row[Any]]] = OrderedDict()
        self._taken = 0  # from the lines into the batch
        self._thread: threading.Thread | None = None

    def load(self) -> tuple[int, int]:
        """Return how many rows are being answered, and how many wait."""
        with self._lock:
            return self._taken, self._waiting()

    def submit(self, rows: Sequence[Row[Any]]) -> None:
        """Queue all of the rows, or none.

        Raises:
            Busy: they do not fit into the batch and the queue now.
            BadData: they never do.
        """
        with self._lock:
            self._forget_cancelled()
            room = math.inf if self._max_waiting is None else self._batch.capacity + self._max_waiting
            if len(rows) > room:
                raise BadData("n", f"{len(rows)} answers at once never fit here; ask for {room} at most.")
            if self._taken + self._waiting() + len(rows) > room:
                raise Busy(f"{self._waiting()} requests wait already. Ask again in a moment.")
            for row in rows:
                self._lines.setdefault(row.system, deque()).append(row)
            if self._thread is None and self._lines:
                thread = threading.Thread(target=self._turn, name="batch")
                try:
                    thread.start()
                except RuntimeError:  # the machine has no thread left; the next request tries again
                    self._lines.clear()
                    raise Busy("The machine has no room for another thread. Ask again in a moment.") from None
                self._thread = thread

    def _waiting(self) -> int:
        return sum(map(len, self._lines.values()))

    def _forget_cancelled(self) -> None:
        for system, line in list(self._lines.items()):
            left = deque(row for row in line if not row.cancelled)
            if left:
                self._lines[system] = left
            else:
                del self._lines[system]

    def _turn(self) -> None:
        while True:
            self._guarded(self._end_cancelled)
            with self._lock:
                self._forget_cancelled()
                joining = self._next()
                if not self._taken:
                    self._thread = None
                    return
            self._guarded(partial(self._advance, joining), joining)

    def _next(self) -> list[Row[Any]]:
        """Take from the lines in turn what has room in the batch and in one pass over prompts."""
        chosen: list[Row[Any]] = []
        full: set[str] = set()
        longest = 0
        while self._taken < self._batch.capacity:
            system = next((one for one in self._lines if one not in full), None)
            if system is None:
                break
            line = self._lines[system]
            if not self._batch.fits(line[0], chosen):
                if not self._batch.apart:  # it is next: were others to pass, it might wait for ever
                    break
                full.add(system)
                continue
            longest = max(longest, line[0].prompt_tokens)
            if chosen and longest * (len(chosen) + 1) > PROMPT_TOKENS:
                break
            chosen.append(line.popleft())
            self._taken += 1
            self._lines.move_to_end(system)
            if not line:
                del self._lines[system]
        return chosen

    def _guarded(self, work: Callable[[], None], joining: Sequence[Row[Any]] = ()) -> None:
        """Do it; a fault of the model or the machine ends the batch's answers, and those that wait go on."""
        rows = [*self._batch.rows, *joining]
        try:
            work()
        except Exception as fault:
            LOG.exception("The model failed; %d answers are lost.", len(rows))
            self._batch.clear()
            self._taken = 0
            for row in rows:
                self._tell(row, fault)

    def _advance(self, joining: Sequence[Row[Any]]) -> None:
        if joining:
            self._batch.join(joining)
            self._end_finished()
        if self._batch.rows:
            self._batch.step()
            self._end_finished()

    def _end_cancelled(self) -> None:
        for row in [row for row in self._batch.rows if row.cancelled]:
            self._leave(row)

    def _end_finished(self) -> None:
        for row in [row for row in self._batch.rows if row.finish is not None]:
            self._leave(row)
            self._tell(row, self._batch.completion(row))

    def _leave(self, row: Row[Any]) -> None:
        self._batch.leave(row)
        self._taken -= 1

    def _tell(self, row: Row[Any], outcome: Completion | Exception) -> None:
        if not row.cancelled and not row.told:
            row.told = True
            row.listener(outcome)
