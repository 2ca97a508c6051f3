"""The scheduler: one thread runs the batch of all callers, token by token."""

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
"""Maximum prompt tokens per prefill, with padding: running sequences wait for it."""


class Batch(Protocol[AdapterT]):
    """The sequences that run together; each engine implements it."""

    max_sequences: int
    sequences: list[SequenceState[AdapterT]]
    separate_pools: bool
    """Whether each adapter has a separate KV cache, so that a sequence that waits for space does not block others."""

    @property
    def max_prompt_logprobs(self) -> int | None:
        """Maximum length of a prompt whose log probabilities are requested; None for no limit."""
        ...

    def can_admit(self, sequence: SequenceState[AdapterT], admitted: Sequence[SequenceState[AdapterT]]) -> bool:
        """Return whether the KV cache can hold it beside the running and the `admitted` sequences.

        A sequence alone can always be admitted.
        """
        ...

    def prefill(self, sequences: Sequence[SequenceState[AdapterT]]) -> None:
        """Add sequences and generate the first token of each."""
        ...

    def step(self) -> None:
        """Generate the next token of every sequence."""
        ...

    def remove(self, sequence: SequenceState[AdapterT]) -> None:
        """Remove a sequence."""
        ...

    def clear(self) -> None:
        """Remove all sequences after an error."""
        ...

    def completion(self, sequence: SequenceState[AdapterT]) -> Completion:
        """Return the completion of a finished sequence."""
        ...

    def set_num_threads(self, count: int) -> None:
        """Set the number of threads for later passes of the calling thread."""
        ...


class Scheduler(Generic[AdapterT]):
    """Admits waiting sequences to the batch between two tokens, and removes finished and cancelled ones.

    There is one queue per system and the queues take turns, so that many requests for one adapter do not delay the
    others. The thread ends when there is no work.

    Attributes:
        count_threads: returns the number of threads for the next step; None leaves the number as it is.
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
        """Return the numbers of running and of waiting sequences."""
        with self._lock:
            return self._running, self._count_waiting()

    def submit(self, sequences: Sequence[SequenceState[AdapterT]]) -> None:
        """Queue all sequences, or none.

        Raises:
            Busy: the queue has no space for them now.
            BadData: there are more sequences than batch and queue can hold.
        """
        with self._lock:
            self._drop_cancelled()
            limit = math.inf if self._max_waiting is None else self._batch.max_sequences + self._max_waiting
            if len(sequences) > limit:
                raise BadData("n", f"{len(sequences)} answers at once are too many; request at most {limit}.")
            if self._running + self._count_waiting() + len(sequences) > limit:
                raise Busy(f"{self._count_waiting()} requests are waiting. Try again in a moment.")
            for sequence in sequences:
                self._queues.setdefault(sequence.system, deque()).append(sequence)
            if self._thread is None and self._queues:
                thread = threading.Thread(target=self._run, name="batch")
                try:
                    thread.start()
                except RuntimeError:  # the operating system refuses a thread; the next request tries again
                    self._queues.clear()
                    raise Busy("The machine cannot start another thread. Try again in a moment.") from None
                self._thread = thread

    def _count_waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    def _drop_cancelled(self) -> None:
        for system, queue in list(self._queues.items()):
            remaining = deque(sequence for sequence in queue if not sequence.cancelled)
            if remaining:
                self._queues[system] = remaining
            else:
                del self._queues[system]

    def _run(self) -> None:
        """Repeat while there is work: 1) remove cancelled sequences 2) admit waiting ones 3) generate a token."""
        threads = 0
        while True:
            self._fail_batch_on_error(self._remove_cancelled)
            with self._lock:
                self._drop_cancelled()
                admitted = self._admit()
                if not self._running:
                    self._thread = None
                    return
            if self.count_threads and threads != (threads := self.count_threads()):
                self._batch.set_num_threads(threads)
            self._fail_batch_on_error(partial(self._advance, admitted), admitted)

    def _admit(self) -> list[SequenceState[AdapterT]]:
        """Take sequences from the queues in turn, up to the limits of the batch and of one prefill."""
        admitted: list[SequenceState[AdapterT]] = []
        blocked: set[str] = set()
        longest = 0
        while self._running < self._batch.max_sequences:
            system = next((system for system in self._queues if system not in blocked), None)
            if system is None:
                break
            queue = self._queues[system]
            if not self._batch.can_admit(queue[0], admitted):
                if not self._batch.separate_pools:  # if others overtook it, it might wait for ever
                    break
                blocked.add(system)
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

    def _fail_batch_on_error(self, work: Callable[[], None], admitted: Sequence[SequenceState[AdapterT]] = ()) -> None:
        """Run `work`; an error fails the sequences of the batch, not the waiting ones."""
        sequences = [*self._batch.sequences, *admitted]
        try:
            work()
        except Exception as error:
            _LOG.exception("The model failed; %d answers are lost.", len(sequences))
            self._batch.clear()
            self._running = 0
            for sequence in sequences:
                self._send_result(sequence, error)

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
            self._send_result(sequence, sequence.error or self._batch.completion(sequence))

    def _remove(self, sequence: SequenceState[AdapterT]) -> None:
        self._batch.remove(sequence)
        self._running -= 1

    def _send_result(self, sequence: SequenceState[AdapterT], result: Completion | Exception) -> None:
        """Send a sequence's last event, once."""
        if not sequence.cancelled and not sequence.completed:
            sequence.completed = True
            sequence.on_event(result)
