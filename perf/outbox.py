"""Durability of ratings: kill writers and exporters at random, then count lost and duplicated ratings.

    python perf/outbox.py [--kills 1000] [--writers 4] [--seed 1]

Writers add ratings, repeat, supersede and delete some, and log each acknowledgement with its duration. Afterwards the
shards of both destinations are read: each must contain every acknowledged rating exactly once and no deleted rating.
Exits with 1 if not.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bilora.feedback.compact import compact
from bilora.feedback.events import new_event_id
from bilora.feedback.export import export
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget, read_shards
from bilora.records import Rating

LIFE_S = (0.005, 0.06)
"""How long processes run between two kills."""
PAUSE_S = 0.002
"""Pause between ratings under kills: so short that most kills interrupt a transaction."""
TIMED_PAUSE_S = 0.05
"""Mean pause of a writer whose acknowledgements are timed: four writers add 80 ratings per second."""
DESTINATIONS = ("shards", "second")
"""Folders that the exporter writes to in turn; each is checked, and the larger count is reported."""
DAYS = ("2026-01-30", "2026-01-31", "2026-02-01")


def make_rating(generation: str, rng: random.Random, supersedes: str | None = None) -> Rating:
    """Return a rating of about one kilobyte."""
    return Rating(
        event_id=new_event_id(), generation_id=generation, session="s", task="codegen", prompt="p" * 500,
        completion="c" * 300, adapter_sha256="a" * 64, base_revision="b" * 40, rating="up", consent=True,
        app_version="perf", created_utc=f"{rng.choice(DAYS)}T12:00:00+00:00", supersedes=supersedes,
    )  # fmt: skip


def write_until_killed(path: Path, log_line: Callable[[str], None], name: str, seed: int) -> None:
    """Add, repeat, supersede and delete ratings until killed; log each action after its acknowledgement."""
    rng = random.Random(seed)
    with Outbox(path) as outbox:
        for number in range(1_000_000):
            rating = make_rating(f"{name}-{number}", rng)
            start = time.perf_counter()
            outbox.add(rating)
            log_line(f"+ {rating.generation_id} {rating.event_id} {time.perf_counter() - start}")
            outbox.add(rating if number % 2 else make_rating(rating.generation_id, rng))  # a rerun, or a second click
            if number % 7 == 0:
                changed = make_rating(rating.generation_id, rng, supersedes=rating.event_id)
                outbox.add(changed)
                log_line(f"+ {rating.generation_id} {changed.event_id} -")
            if number % 31 == 0:
                log_line(f"? {rating.generation_id} {rating.event_id} -")  # from now on it may be in the shards or not
                outbox.delete(rating.event_id, created_utc=f"{DAYS[-1]}T13:00:00+00:00")
                log_line(f"- {rating.generation_id} {rating.event_id} -")
                outbox.add(rating)  # a late rerun
            time.sleep(PAUSE_S)


def export_until_killed(path: Path, destinations: Sequence[Path], pause_s: float = PAUSE_S) -> None:
    """Export to the destinations in turn until killed."""
    with Outbox(path) as outbox:
        for destination in itertools.cycle(destinations):
            export(outbox, FolderTarget(destination))
            time.sleep(pause_s)


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child process that ends with it; return the process id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def run_kills(folder: Path, kills: int, writers: int, seed: int) -> list[list[str]]:
    """Kill and restart processes at random; return the words of every line that they logged."""
    rng = random.Random(seed)
    path, log = folder / "outbox.sqlite3", folder / "log"
    destinations = [folder / name for name in DESTINATIONS]
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def log_line(line: str) -> None:
        os.write(log_fd, f"{line}\n".encode())

    def start(index: int, life: int) -> int:
        if index == writers:
            return fork(lambda: export_until_killed(path, destinations))
        return fork(lambda: write_until_killed(path, log_line, f"{index}-{life}", seed * 1_000_003 + life))

    children = [start(index, 0) for index in range(writers + 1)]
    for life in range(1, kills + 1):
        time.sleep(rng.uniform(*LIFE_S))
        index = rng.randrange(writers + 1)
        os.kill(children[index], signal.SIGKILL)
        _, status = os.waitpid(children[index], 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit("perf: a process ended by itself; its error is above.")
        children[index] = start(index, life)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(log_fd)
    with Outbox(path) as outbox:
        for destination in destinations:
            export(outbox, FolderTarget(destination))
    return [line.split() for line in log.read_text().splitlines()]


def check_shards(log: list[list[str]], shards: Path) -> dict[str, int]:
    """Compare the logged acknowledgements with the ratings in the shards; return the counts."""
    target = FolderTarget(shards)
    rows = [row for members in read_shards(target, Rating).values() for row in members]
    lines = Counter(row.event_id for row in rows)
    clicks = Counter(row.generation_id for row in rows if row.supersedes is None)
    current = {row.generation_id: {row.event_id, row.supersedes} for row in compact(target).ratings}
    last = {words[1]: words[2] for words in log if words[0] == "+"}
    uncertain = {words[1] for words in log if words[0] == "?"}
    deleted = {words[1] for words in log if words[0] == "-"}
    return {
        "acknowledged": sum(words[0] == "+" for words in log),
        "lost": sum(last[generation] not in current.get(generation, ()) for generation in last.keys() - uncertain),
        "duplicated": sum(count > 1 for count in (*lines.values(), *clicks.values())),
        "deleted": len(deleted),
        "not deleted": len(deleted.intersection(row.generation_id for row in rows)),
    }


def quantiles(seconds: list[float]) -> str:
    """Return the median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    p50, p99 = (1000 * ordered[int(share * len(ordered))] for share in (0.5, 0.99))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, n {len(ordered)}"


def time_writes(path: Path, log_line: Callable[[str], None], name: str, ratings: int) -> None:
    """Add ratings at a steady rate, and log how long each acknowledgement took."""
    rng = random.Random(name)
    with Outbox(path) as outbox:
        for number in range(ratings):
            rating = make_rating(f"{name}-{number}", rng)
            start = time.perf_counter()
            outbox.add(rating)
            log_line(str(time.perf_counter() - start))
            time.sleep(rng.uniform(0, 2 * TIMED_PAUSE_S))


def time_without_kills(folder: Path, writers: int, ratings: int) -> list[float]:
    """Return the seconds per acknowledgement of writers that are not killed, while an exporter runs."""
    path, log = folder / f"{writers}.sqlite3", folder / f"{writers}.times"
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def log_line(line: str) -> None:
        os.write(log_fd, f"{line}\n".encode())

    exporter = fork(lambda: export_until_killed(path, [folder / f"{writers}.shards"], pause_s=1.0))
    children = [fork(partial(time_writes, path, log_line, str(index), ratings // writers)) for index in range(writers)]
    for child in children:
        os.waitpid(child, 0)
    os.kill(exporter, signal.SIGKILL)
    os.waitpid(exporter, 0)
    os.close(log_fd)
    return [float(line) for line in log.read_text().split()]


def main() -> int:
    """Print how many ratings were lost, duplicated or not deleted, and how long an acknowledgement took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--timed", type=int, default=1000, help="ratings timed without kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bilora-outbox-") as name:
        folder = Path(name)
        log = run_kills(folder, options.kills, options.writers, options.seed)
        checks = [check_shards(log, folder / destination) for destination in DESTINATIONS]
        faults = {key: max(counts[key] for counts in checks) for key in ("lost", "duplicated", "not deleted")}
        print(f"{options.kills} kills, {options.writers} writers and one exporter to {len(DESTINATIONS)} destinations")
        print(", ".join(f"{key} {value}" for key, value in (checks[0] | faults).items()))
        print(f"acknowledgement under kills: {quantiles([float(w[3]) for w in log if w[3] != '-'])}")
        for writers in (1, options.writers) if options.timed else ():
            times = time_without_kills(folder, writers, options.timed)
            print(f"acknowledgement without kills, writers {writers}, one exporter: {quantiles(times)}")
    return int(sum(faults.values()) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
