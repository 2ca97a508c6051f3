from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.fakes import FakeSandbox
from support.recorded_bars import RecordedBars

from bilora.data.process import ProcessResult, process
from bilora.data_reports import DropExample, ExecutionCounts
from bilora.errors import BiloraError
from bilora.params import Processing
from bilora.records import Outcome, Sample
from bilora.tasks import load_task

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")


def coded(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "text": f"Write a function to add {NUMBERS[number]}.",
        "code": f"def add(n):\n    return n + {number}",
        "test_list": [f"assert add(0) == {number}"],
        "source": f"here:{number}",
        "group": str(number),
        "licence": "MIT",
        **changes,
    }


def described(number: int, **changes: Any) -> dict[str, Any]:
    lines = "\n".join(f"    a{number}_{line} = b{number}_{line} + {line}" for line in range(9))
    return {
        "code": f"def run_{number}(x):\n{lines}",
        "docstring": f"Prepare {NUMBERS[number]} of the many variables.",
        "source": f"here:{number}",
        "group": "g",
        "licence": "MIT",
        **changes,
    }


def run(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    task: str = "codegen",
    rules: Processing | None = None,
    **options: Any,
) -> ProcessResult:
    raw = folder / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sandbox = options.pop("sandbox", FakeSandbox())
    return process(load_task(task), raw, sandbox=sandbox, rules=rules or Processing(), **options)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def dropped(done: ProcessResult) -> dict[str, int]:
    return {entry.rule: entry.count for entry in done.report.rules}


def curated(row: dict[str, Any], task: str) -> list[Sample]:
    accepted = load_task(task).sample(row)
    assert isinstance(accepted, Sample)
    return [accepted]


def test_every_row_is_kept_or_counted(tmp_path: Path) -> None:
    done = run(tmp_path, [coded(1), coded(1), coded(2, test_list=[]), coded(3)])
    assert [sample.source for sample in done.samples] == ["here:1", "here:3"]
    assert (done.report.rows_in, done.report.rows_out) == (4, 2)
    assert dropped(done) == {"exact duplicate": 1, "no tests": 1}


def test_the_report_shows_three_examples(tmp_path: Path) -> None:
    (entry,) = run(tmp_path, [coded(1), *(coded(n, code="no code") for n in (2, 3, 4, 5))]).report.rules
    assert (entry.rule, entry.count) == ("not Python", 4)
    assert [example.source for example in entry.examples] == ["here:2", "here:3", "here:4"]
    assert entry.examples[0].excerpt == "no code"


@pytest.mark.parametrize("key", ["text", "code", "test_list", "source", "group", "licence"])
@pytest.mark.parametrize("null", [False, True])
def test_a_row_that_lacks_a_column_is_a_drop_that_names_it(tmp_path: Path, key: str, null: bool) -> None:
    row = coded(2, origin="my.jsonl:7")
    row[key] = None
    if not null:
        del row[key]
    done = run(tmp_path, [coded(1), row])
    assert [sample.source for sample in done.samples] == ["here:1"]
    (entry,) = done.report.rules
    assert (entry.rule, entry.count) == (f"no `{key}`", 1)
    assert "my.jsonl:7" in entry.examples[0].source


@pytest.mark.parametrize(
    ("wrong", "rule", "detail"),
    [
        ({"text": 3}, "`text` is not text", "`text` is a number: 3"),
        ({"code": ["a"]}, "`code` is not text", "`code` is a list: ['a']"),
        ({"test_list": 5}, "`test_list` is not a list of tests", "`test_list` is a number: 5"),
        (
            {"test_list": ["assert add(0) == 2", 5]},
            "`test_list` has an item that is not text",
            "`test_list` item 2 is a number",
        ),
        ({"test_setup_code": {"a": 1}}, "`test_setup_code` is not text", "`test_setup_code` is an object: {'a': 1}"),
        ({"split": "later"}, "`split` is not a known split", "`split` is 'later'; known: train"),
        ({"split": 1}, "`split` is not a known split", "`split` is a number: 1"),
        ({"group": ["a"]}, "`group` is not text", "`group` is a list: ['a']"),
        ({"licence": True}, "`licence` is not text", "`licence` is a boolean: True"),
        ({"text": "half \ud83d"}, "`text` is not Unicode text", "`text` is 'half \\ud83d'"),
    ],
)
def test_a_row_of_odd_types_is_a_drop_that_names_column_value_and_line(
    tmp_path: Path, wrong: dict[str, Any], rule: str, detail: str
) -> None:
    done = run(tmp_path, [coded(1), coded(2, origin="my.jsonl:7", **wrong)])
    assert [sample.source for sample in done.samples] == ["here:1"]
    (entry,) = done.report.rules
    (example,) = entry.examples
    assert entry.rule == rule
    assert example.detail.startswith(detail) and example.source.endswith("(my.jsonl:7)")


@pytest.mark.parametrize("column", ["test_setup_code", "test_imports", "entry_point", "tier", "split"])
def test_null_in_an_optional_column_counts_as_absent(tmp_path: Path, column: str) -> None:
    done = run(tmp_path, [coded(2, **{column: None})])
    assert done.samples == run(tmp_path, [coded(2)]).samples and len(done.samples) == 1


def test_every_drop_names_the_line_of_its_row(tmp_path: Path) -> None:
    rows = [
        coded(1, origin="my.jsonl:1"),
        coded(1, origin="my.jsonl:2"),
        coded(2, text="word " * 999, origin="my.jsonl:3"),
        coded(3, origin="my.jsonl:4"),
    ]
    wrong = FakeSandbox({"n + 3": Outcome(status="failed", detail="3 is not 4")})
    examples = {rule.rule: rule.examples[0] for rule in run(tmp_path, rows, sandbox=wrong).report.rules}
    assert examples["exact duplicate"].source == "here:1 (my.jsonl:2)"
    assert examples["exact duplicate"].detail == "of here:1 (my.jsonl:1)"
    assert examples["prompt too long"].source == "here:2 (my.jsonl:3)"
    assert examples["reference fails its tests"].source == "here:3 (my.jsonl:4)"


def test_a_row_that_a_source_could_not_read_is_counted(tmp_path: Path) -> None:
    refused = {"source": "my:2", "origin": "my.jsonl:2", "drop": {"rule": "not JSON", "detail": "column 7"}}
    done = run(tmp_path, [coded(1), refused])
    assert (done.report.rows_in, done.report.rows_out, dropped(done)) == (2, 1, {"not JSON": 1})
    assert done.report.rules[0].examples[0].source == "my:2 (my.jsonl:2)"


@pytest.mark.parametrize(
    ("stumble", "rule"),
    [
        (lambda row: row["name"], "no `name`"),
        (lambda row: row["code"].nothing, "not a row of the task codegen"),
        (lambda row: int(row["code"]), "not a row of the task codegen"),
        (lambda row: row["code"] + 1, "not a row of the task codegen"),
        (lambda row: row["test_list"][5], "not a row of the task codegen"),
        (lambda row: copy.deepcopy(nested(9999)), "not a row of the task codegen"),
    ],
)
def test_a_row_on_which_the_task_raises_is_dropped(tmp_path: Path, stumble: Any, rule: str) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text(json.dumps(coded(1)) + "\n")
    task = dataclasses.replace(load_task("codegen"), sample=stumble)
    done = process(task, raw, sandbox=FakeSandbox(), rules=Processing())
    assert dropped(done) == {rule: 1}


@pytest.mark.parametrize(
    "code",
    [
        "def add(n):\n    return " + " + ".join(["n"] * 900),
        "def add(n):\n" + "".join(f"    {'el' if i else ''}if n == {i}:\n        return {i}\n" for i in range(400)),
        "def add(n):\n    return " + "(" * 300 + "n" + ")" * 300,
        "def add(n):\n    return " + "-" * 3000 + "n",
    ],
    ids=["terms", "branches", "parentheses", "signs"],
)
@pytest.mark.parametrize("task", ["codegen", "docstring"])
def test_code_that_is_nested_too_deeply_is_a_drop(tmp_path: Path, code: str, task: str) -> None:
    make_row, options = (
        (coded, {}) if task == "codegen" else (described, {"docstring": "Say what comes out of all these numbers."})
    )
    done = run(
        tmp_path, [make_row(1), make_row(2, code=code, **options)], task=task, rules=Processing(max_target_chars=90_000)
    )
    assert dropped(done) == {"nested too deeply": 1}


def test_too_long_is_dropped(tmp_path: Path) -> None:
    rules = Processing(max_prompt_chars=150, max_target_chars=60)
    rows = [coded(1), coded(2, text="word " * 50), coded(3, code="def add(n):\n    return n" + " + 1" * 20)]
    assert dropped(run(tmp_path, rows, rules=rules)) == {"prompt too long": 1, "target too long": 1}


def test_a_failing_reference_is_dropped_with_its_reason(tmp_path: Path) -> None:
    wrong = FakeSandbox({"n + 2": Outcome(status="failed", results=(False,), detail="2 is not 3")})
    done = run(tmp_path, [coded(1), coded(2)], sandbox=wrong)
    assert [sample.source for sample in done.samples] == ["here:1"]
    assert done.report.rules[0].examples[0].detail == "failed: 2 is not 3"
    assert done.report.execution == ExecutionCounts(run=2, passed=1, isolation=("", "fake"))


def test_a_broken_sandbox_drops_nothing(tmp_path: Path) -> None:
    broken = FakeSandbox({"n + 2": Outcome(status="infrastructure", detail="no namespace")})
    with pytest.raises(BiloraError, match=r"here:2 \(no namespace\)"):
        run(tmp_path, [coded(1), coded(2)], sandbox=broken)


def test_code_then_setup_then_tests_are_run(tmp_path: Path) -> None:
    sandbox = FakeSandbox()
    run(tmp_path, [coded(1, test_setup_code="x = 1")], sandbox=sandbox)
    (program,) = sandbox.programs
    assert (program.code, program.setup, program.tests) == (
        "def add(n):\n    return n + 1",
        "x = 1",
        ("assert add(0) == 1",),
    )


def test_a_paraphrase_is_no_duplicate_but_a_renaming_is(tmp_path: Path) -> None:
    renamed = coded(1, code="def add(k):\n    return k + 1", source="renamed")
    done = run(tmp_path, [coded(1), coded(1, text="Add one to it.", source="said anew"), renamed])
    assert [sample.source for sample in done.samples] == ["here:1", "said anew"]


def test_data_process_does_not_compare_splits(tmp_path: Path) -> None:
    assert len(run(tmp_path, [coded(1, split="train"), coded(1, split="test")]).samples) == 2


def test_near_duplicates_of_described_code_are_dropped(tmp_path: Path) -> None:
    twin = described(1, source="twin", docstring="Prepare all of the many variables.")
    twin["code"] = twin["code"].replace("+ 8", "+ 80")
    done = run(tmp_path, [described(1), described(2), twin], task="docstring")
    assert [sample.source for sample in done.samples] == ["here:1", "here:2"]
    assert dropped(done) == {"near-duplicate": 1}


@pytest.mark.parametrize(
    ("task", "row", "other"),
    [
        ("codegen", coded(1), coded(1, code="def add(n):\n    return 1 + n")),
        ("codegen", coded(1), coded(1, text="Another text.", code="def add(k):\n    return k + 1")),
        (
            "codegen",
            coded(1, text=" ".join(NUMBERS) + " ten nine eight"),
            coded(2, text="It is " + " ".join(NUMBERS) + " ten, as said"),
        ),
        ("docstring", described(1), described(1, docstring="Something else about these variables.")),
        (
            "docstring",
            described(1, docstring=" ".join(NUMBERS) + " and so on"),
            described(2, docstring="Count " + " ".join(NUMBERS) + " and stop"),
        ),
    ],
    ids=["statement", "program", "statement words", "code", "docstring words"],
)
def test_rows_that_repeat_the_curated_set_are_dropped(
    tmp_path: Path, task: str, row: dict[str, Any], other: dict[str, Any]
) -> None:
    make = coded if task == "codegen" else described
    done = run(tmp_path, [row, make(9)], task=task, curated=curated(other, task))
    assert dropped(done) == {"repeats the curated set": 1}
    assert [sample.source for sample in done.samples] == ["here:9"]


def test_the_bars_count_every_row_that_is_read_and_every_reference_that_is_run(tmp_path: Path) -> None:
    bars = RecordedBars()
    rows = [coded(1), coded(2, test_list=[]), coded(3, text="word " * 999), coded(1)]
    run(tmp_path, rows, bars=bars)
    assert bars.recorded == [
        ("data-process codegen: read", 4, 4, True),
        ("data-process codegen: run the references", 2, 2, True),
    ]


def test_equal_rows_give_equal_reports(tmp_path: Path) -> None:
    rows = [described(1), described(2), described(1), described(3, docstring="Short.")]
    first, second = (run(tmp_path, rows, task="docstring") for _ in range(2))
    assert (first.samples, first.report) == (second.samples, second.report)


def test_the_report_of_a_refused_row_does_not_show_internal_keys(tmp_path: Path) -> None:
    refused = {"source": "my:3", "origin": "my.jsonl:3", "drop": {"rule": "not JSON", "detail": "not JSON: {a"}}
    (entry,) = run(tmp_path, [refused, coded(1)]).report.rules
    assert entry.examples == (DropExample(source="my:3 (my.jsonl:3)", detail="not JSON: {a", excerpt=""),)


def test_training_rows_that_repeat_a_guard_are_dropped_and_rows_of_an_official_test_split_are_not(
    tmp_path: Path,
) -> None:
    prose = "Write a function to add the numbers of a list that are larger than all numbers before them in the list."
    rows = [
        coded(1, text=prose, split="train"),
        coded(2, text=f"{prose} Return zero for none.", split="validation"),
        coded(3, text=f"{prose} Stop there.", split="test"),
        coded(4, code="def total(value):\n    return 5 - value", test_list=["assert total(0) == 5"], split="train"),
        coded(5, split="train"),
    ]
    task = load_task("codegen")
    question = task.sample(coded(6, text=prose, source="public:1"))
    program = task.sample(
        coded(7, code="def f(x):\n    return 5 - x", test_list=["assert f(0) == 5"], source="public:2")
    )
    done = run(tmp_path, rows, guards={"public": [question, program]})
    assert dropped(done) == {"repeats the guard public": 3}
    assert [sample.source for sample in done.samples] == ["here:3", "here:5"]
