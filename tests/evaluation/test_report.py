"""report.html: self-contained, and text by models or users cannot run in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bilora.data_reports import ProcessReport, SplitReport
from bilora.evaluation.charts import difference_bar, interval_bar, line_chart
from bilora.evaluation.examples import MAX_EXAMPLES, MAX_FAILURES
from bilora.evaluation.report import MAX_TEXT_CHARS, TaskArtifacts, printable, render_report, with_bars
from bilora.evaluation.table import build_table
from bilora.records import EvalRow, Interval, Sample, Scale
from bilora.results import Results, read_results, write_results
from bilora.sweep_results import Sweep, Variant, VariantResult

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</pre></details></style><iframe src='http://example.org'>",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[31mred\x1b[0m\x00\x07\x9b",
    "right\u202eleft\u2066\u200bzero",
    "]]><!-- &lt; &amp;amp;",
]
SCALE = Scale(label="pass@1")
VOID = {"meta", "link", "br", "input"}
TAGS = {
    *("html", "head", "title", "style", "body", "main", "header", "footer", "section", "meta", "link"),
    *("h1", "h2", "h3", "p", "div", "span", "a", "pre", "nav", "ul", "li", "dl", "dt", "dd", "details", "summary"),
    *("fieldset", "legend", "label", "input"),
    *("table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption"),
    *("svg", "line", "rect", "circle", "polyline", "path", "text"),
}


class Page(HTMLParser):
    """Reads a page, checks that its tags match, and collects what could run or load."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


CURVES = {
    "codegen": [
        {
            "step": step,
            "loss": 5 / step,
            "tokens_per_s": 900.0,
            **({"pass_at_1": 0.5} if step % 10 == 0 else {}),
        }
        for step in range(1, 101)
    ]
}
KINDS = {"data-process": ProcessReport, "data-split": SplitReport}
EXAMPLE = {"source": "installed:x==1:x.py:3", "detail": "line 1", "excerpt": "def :"}
DROPS = {
    "codegen": {
        "data-process": {
            "task": "codegen",
            "execution": {"run": 100, "passed": 95, "isolation": []},
            "rows_in": 120,
            "rows_out": 100,
            "rules": [
                {"rule": "not Python", "count": 5, "examples": [EXAMPLE]},
                {"rule": "duplicate", "count": 15, "examples": [EXAMPLE | {"excerpt": "again"}] * 5},
            ],
        },
        "data-split": {
            "rows_in": 100,
            "rows_out": 90,
            "rules": [],
            "dealt": {"train": 70},
            "pairs": [],
            "splits": {
                "train": {
                    "rows": 70,
                    "groups": 9,
                    "licence": {"MIT": 60, "BSD-3-Clause": 10},
                    "tier": {"": 70},
                    "group": {"one": 70},
                }
            },
        },
    }
}
RUNS = {"codegen": {"id": "run-1", "params": {"steps": 7}, "hardware": {"cpu": "two cores"}, "seed": 3}}


def page(
    results: Results,
    drops: Mapping[str, Any] = DROPS,
    runs: Mapping[str, Any] = RUNS,
    curves: Mapping[str, Any] = CURVES,
    sweeps: Mapping[str, Sweep] | None = None,
) -> str:
    artifacts = {
        name: TaskArtifacts(
            {stage: KINDS[stage].model_validate(report) for stage, report in drops.get(name, {}).items()},
            runs.get(name, {}),
            curves.get(name, ()),
            (sweeps or {}).get(name),
        )
        for name in results.tasks
    }
    return render_report(results, artifacts)


def test_a_sweep_is_shown_with_its_best_settings(results: Results) -> None:
    def of(rate: float, seed: int, metric: float) -> VariantResult:
        variant = Variant(learning_rate=rate, rank=16, alpha=32, target_modules=("<b>q_proj",), seed=seed)
        return VariantResult(
            variant=variant,
            trainable_parameters=9,
            metric=metric,
            validation_loss=0.5,
            best_step=2,
            steps=4,
            tokens=7,
            seconds=1.0,
        )

    trials = (of(1e-3, 1, 0.25), of(2e-3, 1, 0.5), of(2e-3, 2, 0.5))
    sweep = Sweep(task="codegen", base_id="b", metric="pass_at_1", validation_samples=40, results=trials)
    text = page(results, sweeps={"codegen": sweep})
    assert text.count(">best<") == 2 and "0.002 <span" in text and "0.001 <span" not in text
    assert ">50.0" in text and "&lt;b&gt;q_proj" in text and "on 40 validation samples" in text
    assert "<h3>Sweep</h3>" not in page(results)


def test_the_plan_is_beside_the_measurement(results: Results) -> None:
    truth = {"duration_s": 246.0, "peak_memory_bytes": 2.2 * 2**30}
    both = page(results, runs={"codegen": truth | {"planned_s": 270.0, "planned_memory_bytes": 2**31}})
    assert "Training took 4.1 min and 2.2 GiB; 4.5 min and 2.0 GiB were planned." in both
    assert "Training took 4.1 min and 2.2 GiB." in page(results, runs={"codegen": truth})
    assert "Training took" not in page(results)


def poison(value: Any, bad: str) -> Any:
    """Put `bad` into every string that is content, but not into keys and enumerations."""
    if isinstance(value, dict):
        fixed = {"outcome", "against", "finish", "dataset", "system", "sample_id", "metric", "headline", "metrics"}
        return {key: inner if key in fixed else poison(inner, bad) for key, inner in value.items()}
    if isinstance(value, list):
        return [poison(inner, bad) for inner in value]
    return value + bad if isinstance(value, str) else value


@pytest.mark.parametrize("bad", HOSTILE)
def test_text_never_becomes_markup(results: Results, bad: str) -> None:
    hostile = page(
        Results.model_validate(poison(results.model_dump(mode="json", by_alias=True), bad)),
        drops=poison(DROPS, bad),
        runs={"codegen": {bad: bad, "hardware": {bad: bad}}},
        curves={"codegen": [{"step": 1, "loss": 2.0, bad: 1.0}]},
    )
    read = Page(hostile)
    assert set(read.tags) <= TAGS
    assert not [name for name, _ in read.attributes if name.startswith("on") or name == "src"]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", hostile)


def test_hostile_systems_and_tiers_never_become_markup(
    results_of: Callable[..., Results], row: Callable[..., EvalRow], sample: Callable[..., Sample]
) -> None:
    bad = HOSTILE[1]
    rows = [
        row(sample("codegen", number, tier=bad), system, {"pass_at_1": 1.0, bad: 0.5})
        for number in range(3)
        for system in ("codegen", "base", bad, f"floor:{bad}")
    ]
    assert set(Page(page(results_of(rows={"codegen": rows}, notes={bad: bad}))).tags) <= TAGS


def test_the_page_asks_the_network_for_nothing(results: Results) -> None:
    html = page(results)
    assert "://" not in html
    links = [value for name, value in Page(html).attributes if name in ("href", "src", "action", "data")]
    assert all(value is not None and value.startswith(("#", "data:,")) for value in links)
    assert "url(" not in html
    assert "@import" not in html


def test_no_script_and_a_policy_that_forbids_it(results: Results) -> None:
    html = page(results)
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_equal_results_give_equal_bytes(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", results)
    assert page(results) == page(read_results(tmp_path / "results.json"))


def test_long_answers_are_cut_with_a_note(
    results_of: Callable[..., Results], row: Callable[..., EvalRow], sample: Callable[..., Sample]
) -> None:
    rows = [
        row(sample("codegen", 1), system, {"pass_at_1": 1.0}, text="x" * 1_000_000) for system in ("codegen", "base")
    ]
    html = page(results_of(rows={"codegen": rows}))
    assert f"cut here, {1_000_000 - MAX_TEXT_CHARS:,} more characters" in html
    assert len(html) < 200_000


def test_every_task_has_its_banner_with_the_outcome(results: Results) -> None:
    text = " ".join(Page(page(results)).text)
    assert text.count("Passes") == 2
    assert "Inconclusive" in text
    assert "2 of 3 adapters pass the gate" in text


def test_both_colour_schemes_and_a_phones_width_are_served(results: Results) -> None:
    html = page(results)
    assert "prefers-color-scheme: dark" in html
    assert "width=device-width" in html


def shown_kinds(html: str) -> list[str]:
    return re.findall(r'<span class="tag soft">([^<]*)</span></summary>', html)


def test_samples_of_every_kind_are_shown(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]]
) -> None:
    new = [1.0] * 40 + [0.0] * 2
    old = [1.0] * 38 + [0.0, 0.0, 1.0, 0.0]
    kinds = shown_kinds(page(results_of(rows={"codegen": pairs("codegen", "pass_at_1", new, old)})))
    assert len(kinds) == MAX_EXAMPLES
    assert set(kinds) == {"both right", "only the adapter right", "only the base right", "both wrong"}
    assert kinds.count("only the adapter right") == 2


def test_graded_answers_are_not_called_right_or_wrong(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]]
) -> None:
    html = page(results_of(rows={"docstring": pairs("docstring", "bleu", [0.9, 0.1, 0.8, 0.3], [0.2, 0.7, 0.85, 0.4])}))
    assert sorted(shown_kinds(html)) == [
        "both above the median",
        "both below the median",
        "only the adapter above the median",
        "only the base above the median",
    ]
    assert "✓" not in html
    assert "✗" not in html


def test_which_assert_failed_is_reported(results: Results) -> None:
    assert "failed: assert add([1])" in page(results)


def test_an_unscored_answer_is_neither_right_nor_wrong(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]]
) -> None:
    html = page(results_of(rows={"codegen": pairs("codegen", "pass_at_1", [None], [None], reason="sandbox broke")}))
    assert html.count('class="tag unknown"') == 2
    assert shown_kinds(html) == ["unscored"]


def test_drop_rules_come_with_counts_and_three_examples(results: Results) -> None:
    html = page(results)
    assert html.index(">duplicate<") < html.index(">not Python<")
    assert html.count("line 1\nagain") == 3


def test_the_run_record_and_licences_are_shown(results: Results) -> None:
    html = page(results)
    for fact in ("run-1", "hardware · cpu", "MIT 60, BSD-3-Clause 10", "&#34;steps&#34;: 7"):
        assert fact in html


def test_a_page_without_drops_runs_and_curves_says_so(results: Results) -> None:
    html = page(results, drops={}, runs={}, curves={})
    for note in ("no report of dropped rows", "run record is missing", "No training curve"):
        assert note in html


def test_a_page_of_nothing_is_still_a_page(results_of: Callable[..., Results]) -> None:
    html = page(results_of(rows={"codegen": []}, verdicts={}), drops={}, runs={}, curves={})
    Page(html)
    assert "Nothing has been measured yet" in html
    assert "No verdict" in html


def test_a_run_of_the_adapter_alone_is_shown(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]]
) -> None:
    alone = [row for row in pairs("codegen", "pass_at_1", [1.0, 0.0], [0.0, 0.0]) if row.completion.system != "base"]
    assert len(shown_kinds(page(results_of(rows={"codegen": alone})))) == 2


def test_visible_keeps_plain_text() -> None:
    text = "def f():\n\treturn 'ünïcödé 漢字 🙂'\r\n"
    assert printable(text) == text.replace("\r\n", "\n")


def test_a_curve_survives_what_is_no_number() -> None:
    chart = line_chart([(1, float("nan")), (2, 3.0), (3, float("inf"))], label="loss")
    assert "nan" not in chart
    assert "inf" not in chart


def test_a_long_curve_stays_small() -> None:
    assert len(line_chart([(step, 1 / (step + 1)) for step in range(100_000)], label="loss")) < 20_000


@pytest.mark.parametrize("points", [[], [(1, 1.0)], [(1, 0.0), (2, 0.0)], [(5, -1e-9), (5, 1e9)]])
def test_odd_curves_are_drawn(points: list[tuple[float, float]]) -> None:
    Page(str(line_chart(points, label="loss")))


def test_bars_stay_on_their_track() -> None:
    for bar in (interval_bar(0.0, 0.5, 2.0, 1.0), interval_bar(None, 0.0, None, 0.0)):
        positions = [float(value) for name, value in Page(str(bar)).attributes if name in ("x", "cx") and value]
        assert all(0 <= position <= 120 for position in positions)


def test_a_share_of_the_answers_is_drawn_on_a_track_of_all_of_them(
    results_of: Callable[..., Results], row: Callable[..., EvalRow], sample: Callable[..., Sample]
) -> None:
    rows = [
        row(sample("codegen", number), "codegen", {"pass_at_1": 0.0}, evidence={"status": "failed"})
        for number in range(9)
    ]
    drawn = with_bars(build_table(results_of(rows={"codegen": rows})))
    cells = {line.metric: line.cells["bilora"] for line in drawn.sections[0].rows if not line.tier}
    (width,) = re.findall(r'class="span".*?width="([\d.]+)"', str(cells["missing_module"].bar))
    assert float(width) == pytest.approx(116 * (cells["missing_module"].high or 0.0), abs=0.1)


def test_the_difference_bar_has_zero_in_the_middle_and_shows_the_margin() -> None:
    bar = str(difference_bar(Interval(low=-0.02, mean=0.0, high=0.02), 0.05, SCALE))
    assert 'cx="150.0"' in bar
    assert 'class="margin"' in bar
    assert 'class="margin"' not in str(difference_bar(Interval(low=0.1, mean=0.2, high=0.3), 0.0, SCALE))


def test_the_difference_bar_reaches_no_further_than_a_difference_of_scores_can() -> None:
    bar = str(difference_bar(Interval(low=0.89, mean=0.93, high=0.96), 0.0, SCALE))
    assert re.findall(r">([-+][\d.]+)</text>", bar) == ["-100", "+100"]
    assert "difference +93.0 from +89.0 to +96.0" in bar


def test_every_number_of_a_metric_has_one_unit(results: Results) -> None:
    """Scores are fractions in results.json; the page shows none in verdicts, bars and curves."""
    html = page(results, curves={"codegen": [{"step": 1, "metric": 0.25}, {"step": 2, "metric": 0.5}]})
    text = " ".join(Page(html).text)
    assert "pass@1 on validation last 50" in " ".join(text.split())
    assert re.search(r"Better than the base model \(\+\d\d\.\d points, 95 % \[", text)
    assert not re.search(r"[-+]0\.\d{3}", html)


def report_with_trivial_answer(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]], value: float
) -> str:
    rows = pairs("docstring", "bleu", [0.2, 0.3, 0.4] * 30, [0.1] * 90)
    trivial = [
        row.model_copy(
            update={
                "completion": row.completion.model_copy(update={"system": "floor:name"}),
                "scores": tuple(score.model_copy(update={"value": value}) for score in row.scores),
            }
        )
        for row in rows
        if row.completion.system == "base"
    ]
    return page(results_of(rows={"docstring": [*rows, *trivial]}))


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.1, ""), (0.3, "name (30.0) is inside the adapter"), (0.9, "name (90.0) is above the adapter")],
    ids=["below", "inside", "above"],
)
def test_a_trivial_answer_that_the_adapter_is_not_shown_to_beat_is_named(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]], value: float, said: str
) -> None:
    """Once on the verdict's card, once in the table."""
    html = report_with_trivial_answer(results_of, pairs, value)
    assert html.count("Not shown to be better than a trivial answer: ") == 2 * bool(said)
    assert not said or html.count(said) == 2


def test_the_contents_lead_to_every_part(results: Results) -> None:
    html = page(results)
    attributes = Page(html).attributes
    targets = [value.removeprefix("#") for name, value in attributes if name == "href" and value and value[0] == "#"]
    ids = {value for name, value in attributes if name == "id"}
    assert {"verdicts", "failures", "table-1", "task-1", "task-2", "task-3", "words"} <= set(targets) <= ids


def test_the_words_that_a_page_uses_are_explained(results: Results, results_of: Callable[..., Results]) -> None:
    def words(html: str) -> list[str]:
        return re.findall(r"<dt>([^<]*)</dt>", html[html.index('id="words"') :])

    assert {"gate", "base", "bilora", "held-out", "curated", "trivial answer", "95 % interval", "n"} <= set(
        words(page(results))
    )
    terms = words(page(results_of(rows={"codegen": []})))
    assert "gate" in terms and not {"trivial answer", "curated", "held-out"} & set(terms)


def test_a_metric_explains_itself(results: Results) -> None:
    task = results.tasks["codegen"]
    scale = task.scales["pass_at_1"].model_copy(update={"meaning": "the share that <b>passes</b>"})
    tasks = results.tasks | {"codegen": task.model_copy(update={"scales": task.scales | {"pass_at_1": scale}})}
    html = page(results.model_copy(update={"tasks": tasks}))
    assert "<dt>pass@1</dt><dd>the share that &lt;b&gt;passes&lt;/b&gt;</dd>" in html


def test_curated_failures_are_shown_before_the_tables(results: Results) -> None:
    html = page(results)
    assert html.index('class="failure"') < html.index("Held-out test split</h2>")
    assert html.count('<details class="failure">') == MAX_FAILURES
    assert "The adapter failed 5 of 10 curated questions." in html
    first = html[html.index('<details class="failure">') :]
    assert first[: first.index("</details>")].count("✗") == 2


def test_of_graded_curated_questions_the_lowest_are_shown(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]]
) -> None:
    new = [0.9, 0.1, 0.8, 0.3, 0.7, 0.6, 0.5]
    html = page(results_of(rows={"docstring": pairs("docstring", "bleu", new, [0.5] * 7, dataset="curated")}))
    failures = html[html.index('id="failures"') : html.index('id="table-1"')]
    assert re.findall(r'<span class="tag soft">([^<]*)</span></summary>', failures) == [
        "BLEU 10.0", "BLEU 30.0", "BLEU 50.0", "BLEU 60.0", "BLEU 70.0",
    ]  # fmt: skip
    assert "The 5 of 7 curated questions with the lowest BLEU." in failures


def test_an_example_is_called_by_the_first_line_that_not_all_questions_share(
    results_of: Callable[..., Results], row: Callable[..., EvalRow], sample: Callable[..., Sample]
) -> None:
    rows = [
        row(sample("docstring", n, prompt=f"Say what it does.\n```\ndef f{n}(x):\n```"), "docstring", {"bleu": 0.5})
        for n in range(3)
    ]
    html = page(results_of(rows={"docstring": rows}))
    assert sorted(re.findall(r'<span class="grow">(def [^<]*)</span>', html)) == [
        "def f0(x):",
        "def f1(x):",
        "def f2(x):",
    ]
    alone = page(results_of(rows={"docstring": rows[:1]}))
    assert '<span class="grow">Say what it does.</span>' in alone
