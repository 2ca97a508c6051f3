"""One thread runs the batch, token by token, for all callers."""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol

from bilora.errors import BadData, Busy
from bilora.inference.decoder import AdapterT, SequenceState
from bilora.records import Completion

_LOG = logging.getLogger(__name__)

MAX_PREFILL_TOKENS = 4096
"""Prompt tokens per prefill, padding included: running sequences wait for it."""


class Batch(Protocol[AdapterT]):
    """The sequences that the scheduler runs together; each engine has its own."""

    max_sequences: int
    sequences: list[SequenceState[AdapterT]]
    separate_pools: bool
    """Whether each adapter has a KV cache of its own, so that other sequences may overtake one that waits for space."""

    @property
    def max_scored_tokens(self) -> int | None:
        """How long a prompt may be whose tokens' probabilities are wanted; None if any length may."""
        ...

    def fits(self, sequence: SequenceState[AdapterT], joining: Sequence[SequenceState[AdapterT]]) -> bool:
        """Return whether it fits into the KV cache beside the running sequences and `joining`; alone it always does."""
        ...

    def prefill(self, sequences: Sequence[SequenceState[AdapterT]]) -> None:
        """Add new sequences and give each its first token."""
        ...

    def step(self) -> None:
        """Give every sequence its next token."""
        ...

    def remove(self, sequence: SequenceState[AdapterT]) -> None:
        """Take a sequence out."""
        ...

    def clear(self) -> None:
        """Take all sequences out after an error."""
        ...

    def completion(self, sequence: SequenceState[AdapterT]) -> Completion:
        """Return the answer of a finished sequence."""
        ...

    def use_threads(self, count: int) -> None:
        """Compute with this many threads from now on, in the calling thread."""
        ...


class Scheduler(Generic[AdapterT]):
    """Adds waiting sequences to the batch between two tokens, and removes finished and cancelled ones.

    Each system has a queue of its own and the queues take turns, so that many requests for one adapter do not delay
    the others. The thread lives only while there is work; there is nothing to close.

    Attributes:
        count_threads: called before each step, says how many threads it has; None for as many as there were.
    """

    def __init__(self, batch: Batch[AdapterT], *, max_waiting: int | None = None) -> None:
        self.count_threads: Callable[[], int] | None = None
        self._batch = batch
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._queues: OrderedDict[str, deque[SequenceState[AdapterT]]] = OrderedDict()
        self._running = 0
        self._thread: threading.Thread | None = None

    def queue_depth(self) -> tuple[int, int]:
        """Return how many sequences are running, and how many wait."""
        with self._lock:
            return self._running, self._waiting()

    def submit(self, sequences: Sequence[SequenceState[AdapterT]]) -> None:
        """Queue all of the sequences, or none.

        Raises:
            Busy: batch and queue are too full for them now.
            BadData: there are more than batch and queue hold.
        """
        with self._lock:
            self._drop_cancelled()
            limit = math.inf if self._max_waiting is None else self._batch.max_sequences + self._max_waiting
            if len(sequences) > limit:
                raise BadData("n", f"{len(sequences)} answers at once never fit here; ask for {limit} at most.")
            if self._running + self._waiting() + len(sequences) > limit:
                raise Busy(f"{self._waiting()} requests wait already. Ask again in a moment.")
            for sequence in sequences:
                self._queues.setdefault(sequence.system, deque()).append(sequence)
            if self._thread is None and self._queues:
                thread = threading.Thread(target=self._run, name="batch")
                try:
                    thread.start()
                except RuntimeError:  # the operating system allows no other thread; the next request tries again
                    self._queues.clear()
                    raise Busy("The machine has no room for another thread. Ask again in a moment.") from None
                self._thread = thread

    def _waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    def _drop_cancelled(self) -> None:
        for system, queue in list(self._queues.items()):
            remaining = deque(sequence for sequence in queue if not sequence.cancelled)
            if remaining:
                self._queues[system] = remaining
            else:
                del self._queues[system]

    def _run(self) -> None:
        """Work until nothing runs or waits: 1) remove cancelled sequences 2) admit waiting ones 3) make one token."""
        threads = 0
        while True:
            self._guarded(self._remove_cancelled)
            with self._lock:
                self._drop_cancelled()
                admitted = self._admit()
                if not self._running:
                    self._thread = None
                    return
            if self.count_threads and threads != (threads := self.count_threads()):
                self._batch.use_threads(threads)
            self._guarded(partial(self._advance, admitted), admitted)

    def _admit(self) -> list[SequenceState[AdapterT]]:
        """Take sequences from the queues in turn, as many as fit into the batch and into one prefill."""
        admitted: list[SequenceState[AdapterT]] = []
        full: set[str] = set()
        longest = 0
        while self._running < self._batch.max_sequences:
            system = next((system for system in self._queues if system not in full), None)
            if system is None:
                break
            queue = self._queues[system]
            if not self._batch.fits(queue[0], admitted):
                if not self._batch.separate_pools:  # it is next: if others overtook it, it might wait for ever
                    break
                full.add(system)
                continue
            longest = max(longest, queue[0].prompt_tokens)
            if admitted and longest * (len(admitted) + 1) > MAX_PREFILL_TOKENS:
                break
            admitted.append(queue.popleft())
            self._running += 1
            self._queues.move_to_end(system)
            if not queue:
                del self._queues[system]
        return admitted

    def _guarded(self, work: Callable[[], None], joining: Sequence[SequenceState[AdapterT]] = ()) -> None:
        """Run `work`; an error of the model or the machine ends the sequences of the batch, not those that wait."""
        sequences = [*self._batch.sequences, *joining]
        try:
            work()
        except Exception as error:
            _LOG.exception("The model failed; %d answers are lost.", len(sequences))
            self._batch.clear()
            self._running = 0
            for sequence in sequences:
                self._report(sequence, error)

    def _advance(self, admitted: Sequence[SequenceState[AdapterT]]) -> None:
        if admitted:
            self._batch.prefill(admitted)
            self._complete_finished()
        if self._batch.sequences:
            self._batch.step()
            self._complete_finished()

    def _remove_cancelled(self) -> None:
        for sequence in [sequence for sequence in self._batch.sequences if sequence.cancelled]:
            self._remove(sequence)

    def _complete_finished(self) -> None:
        for sequence in [sequence for sequence in self._batch.sequences if sequence.finish is not None]:
            self._remove(sequence)
            self._report(sequence, sequence.error or self._batch.completion(sequence))

    def _remove(self, sequence: SequenceState[AdapterT]) -> None:
        self._batch.remove(sequence)
        self._running -= 1

    def _report(self, sequence: SequenceState[AdapterT], outcome: Completion | Exception) -> None:
        """Send a sequence's last event, once."""
        if not sequence.cancelled and not sequence.completed:
            sequence.completed = True
            sequence.on_event(outcome)
