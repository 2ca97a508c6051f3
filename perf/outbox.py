"""Durability of the ratings: kill writers and exporters at random, then count lost and duplicated ratings.

    python perf/outbox.py [--kills 1000] [--writers 4] [--seed 1]

Writers rate, repeat a rating, supersede and delete one; each logs what was acknowledged and how long that took.
Afterwards the shards of both destinations are read line by line: each must have every acknowledged rating exactly
once and no deleted one. Exits with 1 if not.
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
PACE_S = 0.05
"""Mean pause of a writer whose acknowledgements are timed: four of them make 80 ratings per second."""
PLACES = ("shards", "second")
"""Destinations, exported to in turn; each is checked, and the worst counts."""
DAYS = ("2026-01-30", "2026-01-31", "2026-02-01")


def rating(generation: str, chance: random.Random, supersedes: str | None = None) -> Rating:
    """Return a rating of about one kilobyte."""
    return Rating(
        event_id=new_event_id(), generation_id=generation, session="s", task="codegen", prompt="p" * 500,
        completion="c" * 300, adapter_sha256="a" * 64, base_revision="b" * 40, rating="up", consent=True,
        app_version="perf", created_utc=f"{chance.choice(DAYS)}T12:00:00+00:00", supersedes=supersedes,
    )  # fmt: skip


def write(path: Path, log_line: Callable[[str], None], name: str, seed: int) -> None:
    """Rate until killed; what a line says was acknowledged before it is written."""
    chance = random.Random(seed)
    with Outbox(path) as outbox:
        for number in range(1_000_000):
            one = rating(f"{name}-{number}", chance)
            start = time.perf_counter()
            outbox.add(one)
            log_line(f"+ {one.generation_id} {one.event_id} {time.perf_counter() - start}")
            outbox.add(one if number % 2 else rating(one.generation_id, chance))  # a rerun, or a second click
            if number % 7 == 0:
                changed = rating(one.generation_id, chance, supersedes=one.event_id)
                outbox.add(changed)
                log_line(f"+ {one.generation_id} {changed.event_id} -")
            if number % 31 == 0:
                log_line(f"? {one.generation_id} {one.event_id} -")  # from here on it may be in the shards or not
                outbox.delete(one.event_id, created_utc=f"{DAYS[-1]}T13:00:00+00:00")
                log_line(f"- {one.generation_id} {one.event_id} -")
                outbox.add(one)  # a late rerun
            time.sleep(PAUSE_S)


def export_forever(path: Path, places: Sequence[Path], rest_s: float = PAUSE_S) -> None:
    """Export to each place in turn, again and again until killed."""
    with Outbox(path) as outbox:
        for place in itertools.cycle(places):
            export(outbox, FolderTarget(place))
            time.sleep(rest_s)


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child that never returns here; return its process id."""
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
    chance = random.Random(seed)
    path, log = folder / "outbox.sqlite3", folder / "said"
    places = [folder / name for name in PLACES]
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def log_line(line: str) -> None:
        os.write(said, f"{line}\n".encode())

    def start(place: int, life: int) -> int:
        if place == writers:
            return fork(lambda: export_forever(path, places))
        return fork(lambda: write(path, log_line, f"{place}-{life}", seed * 1_000_003 + life))

    children = [start(place, 0) for place in range(writers + 1)]
    for life in range(1, kills + 1):
        time.sleep(chance.uniform(*LIFE_S))
        place = chance.randrange(writers + 1)
        os.kill(children[place], signal.SIGKILL)
        _, status = os.waitpid(children[place], 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit("perf: a process ended by itself; its error is above.")
        children[place] = start(place, life)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(said)
    with Outbox(path) as outbox:
        for one in places:
            export(outbox, FolderTarget(one))
    return [line.split() for line in log.read_text().splitlines()]


def check_shards(said: list[list[str]], shards: Path) -> dict[str, int]:
    """Compare what was acknowledged with what the shards contain."""
    target = FolderTarget(shards)
    rows = [row for members in read_shards(target, Rating).values() for row in members]
    lines = Counter(row.event_id for row in rows)
    clicks = Counter(row.generation_id for row in rows if row.supersedes is None)
    standing = {row.generation_id: {row.event_id, row.supersedes} for row in compact(target).ratings}
    last = {words[1]: words[2] for words in said if words[0] == "+"}
    perhaps = {words[1] for words in said if words[0] == "?"}
    deleted = {words[1] for words in said if words[0] == "-"}
    return {
        "acknowledged": sum(words[0] == "+" for words in said),
        "lost": sum(last[generation] not in standing.get(generation, ()) for generation in last.keys() - perhaps),
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
    """Rate at a steady pace, and log how long each acknowledgement took."""
    chance = random.Random(name)
    with Outbox(path) as outbox:
        for number in range(ratings):
            one = rating(f"{name}-{number}", chance)
            start = time.perf_counter()
            outbox.add(one)
            log_line(str(time.perf_counter() - start))
            time.sleep(chance.uniform(0, 2 * PACE_S))


def time_without_kills(folder: Path, writers: int, ratings: int) -> list[float]:
    """Return the seconds per acknowledgement of writers that are not killed, while an exporter runs."""
    path, log = folder / f"{writers}.sqlite3", folder / f"{writers}.times"
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def log_line(line: str) -> None:
        os.write(said, f"{line}\n".encode())

    exporter = fork(lambda: export_forever(path, [folder / f"{writers}.shards"], rest_s=1.0))
    children = [fork(partial(time_writes, path, log_line, str(place), ratings // writers)) for place in range(writers)]
    for child in children:
        os.waitpid(child, 0)
    os.kill(exporter, signal.SIGKILL)
    os.waitpid(exporter, 0)
    os.close(said)
    return [float(line) for line in log.read_text().split()]


def main() -> int:
    """Print how many ratings were lost, duplicated or not deleted, and how long an acknowledgement took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--timed", type=int, default=1000, help="ratings timed without kills")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bilora-outbox-") as name:
        folder = Path(name)
        said = run_kills(folder, given.kills, given.writers, given.seed)
        first, *others = [check_shards(said, folder / place) for place in PLACES]
        found = first | {
            key: max(one[key] for one in (first, *others)) for key in ("lost", "duplicated", "not deleted")
        }
        print(f"{given.kills} kills, {given.writers} writers and one exporter to {len(PLACES)} destinations")
        print(", ".join(f"{key} {value}" for key, value in found.items()))
        print(f"acknowledgement under kills: {quantiles([float(w[3]) for w in said if w[3] != '-'])}")
        for writers in (1, given.writers) if given.timed else ():
            times = time_without_kills(folder, writers, given.timed)
            print(f"acknowledgement without kills, writers {writers}, one exporter: {quantiles(times)}")
    return int(found["lost"] + found["duplicated"] + found["not deleted"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
