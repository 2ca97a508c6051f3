"""The page on the smoke base, run by Streamlit's test driver."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from support.checkouts import ROOT

from bilora.feedback.compact import compact
from bilora.feedback.database import OutboxFault
from bilora.feedback.export import export
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget

pytestmark = pytest.mark.slow
WAIT_S = 120


@pytest.fixture
def page(adapted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AppTest]:
    """The page in a checkout whose adapters are made, with a feedback folder of its own."""
    for name in ("BILORA_ENDPOINT", "BILORA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(adapted)
    monkeypatch.setattr("bilora.layout.Layout.outbox", tmp_path / "outbox.sqlite3")
    yield AppTest.from_file(str(ROOT / "hf_space" / "app.py"), default_timeout=WAIT_S).run()


def button(page: AppTest, label: str) -> Any:
    return next(element for element in page.button if element.label == label)


def ask(page: AppTest, text: str, who: str = "adapter") -> AppTest:
    page.text_area[0].set_value(text)
    page.radio[0].set_value(who)
    return button(page, "Ask").click().run()


def older(page: AppTest) -> list[str]:
    """The titles of the questions that are not in the form any more."""
    return [element.label for element in page.expander if element.label.startswith("`")]


def shown(page: AppTest) -> str:
    return "\n".join(element.value for element in page.code)


def test_the_example_is_answered_by_adapter_and_base(page: AppTest) -> None:
    button(page, "Use the example").click().run()
    ask(page, page.text_area[0].value, "side by side")
    assert not page.exception and [element.value for element in page.subheader] == ["codegen", "base"]
    for _ in range(200):
        if not [element for element in page.caption if "Running it" in element.value]:
            break
        time.sleep(0.1)
        page.run()
    errors = [element.value for element in page.error]  # the adapters are random
    assert [error.startswith("Fails your assert: ") for error in errors] == [True, True]
    captions = [element.value for element in page.caption if "tokens/s" in element.value]
    assert len(captions) == 2 and "adapter " in captions[0] and "adapter " not in captions[1]


def test_markup_stays_text_and_history_stays(page: AppTest) -> None:
    ask(page, "<script>alert(1)</script> & `x` **y**")
    ask(page, "second")
    assert "<script>alert(1)</script>" in shown(page) and len(older(page)) == 1
    assert len(page.subheader) == 2
    assert not any("<script>" in element.value for element in page.markdown)


@pytest.mark.parametrize(("text", "message"), [("", "Type something"), ("x" * 100_000, "100,000 characters")])
def test_an_invalid_question_is_refused_in_one_sentence(page: AppTest, text: str, message: str) -> None:
    ask(page, text)
    assert message in page.warning[0].value and not page.exception and not page.subheader


def test_prose_instead_of_code_and_code_instead_of_prose_are_refused(page: AppTest) -> None:
    ask(page, "def double(x):\n    return 2 * x")
    assert [element.value for element in page.warning] == [
        "This is finished code, not a question; describe in words what a function should do."
    ]
    page.segmented_control[0].set_value("docstring").run()
    ask(page, "Write a function that doubles a number.")
    assert [element.value for element in page.warning] == [
        "This text contains no complete Python function; type one whole function."
    ]
    assert not page.subheader and not page.exception


def test_the_first_screen_says_what_each_adapter_can_do(page: AppTest) -> None:
    message = page.markdown[0].value
    assert (
        "**Write code**: Writes a Python function" in message
        and "**Explain code**: Describes in one sentence" in message
    )
    ask(page, "add two numbers")
    assert not [element for element in page.markdown if "**Write code**" in element.value]


def test_a_rating_is_stored_once_with_the_adapter_s_digest(page: AppTest, tmp_path: Path) -> None:
    ask(page, "add two numbers")
    button(page, "Rate").click().run()
    assert "Choose a thumb" in page.warning[0].value
    page.feedback[0].set_value(1)
    button(page, "Rate").click().run()
    assert "your rating is stored" in page.success[0].value
    page.run().run()
    assert not [element for element in page.button if element.label == "Rate"]
    with sqlite3.connect(tmp_path / "outbox.sqlite3") as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        text = str([database.execute(f"select * from {table}").fetchall() for table in tables])
    assert text.count("add two numbers") == 1


def change(page: AppTest) -> AppTest:
    return button(page, "Change the rating").click().run()


def test_a_rating_can_be_changed_and_its_consent_withdrawn(page: AppTest, tmp_path: Path) -> None:
    ask(page, "add two numbers")
    page.feedback[0].set_value(1)
    page.checkbox[0].set_value(True)
    button(page, "Rate").click().run()
    target = FolderTarget(tmp_path / "shards")
    with Outbox(tmp_path / "outbox.sqlite3") as outbox:
        export(outbox, target)
        (first,) = compact(target).ratings
        assert f"stored as {first.event_id}" in page.success[0].value
        assert (page.feedback[0].value, page.checkbox[0].value) == (1, True)  # the form shows what was rated

        page.feedback[0].set_value(0)
        edit = next(element for element in page.text_area if element.label == "How it should read")
        indented = f"    {edit.value}"
        edit.set_value(indented)
        change(page)
        second = outbox.valid_rating(first.generation_id)
        assert second is not None and f"stored as {second.event_id}" in page.success[0].value
        assert (second.supersedes, second.rating, second.edited) == (first.event_id, "down", indented)
        assert second.consent and second.session == first.session
        export(outbox, target)
        assert [rating.event_id for rating in compact(target).ratings] == [second.event_id]

        page.checkbox[0].set_value(False)
        change(page)
        third = outbox.valid_rating(first.generation_id)
        assert third is not None and not third.consent and third.edited == indented
        assert outbox.holders(second.event_id) == [target.name]
        export(outbox, target)
        assert compact(target).ratings == () and outbox.holders(second.event_id) == []
    assert not page.exception and not page.error


def test_a_change_that_cannot_be_stored_is_reported_and_the_rating_stays(
    page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OutboxFault(tmp_path, OSError("disk full"))

    ask(page, "add two numbers")
    page.feedback[0].set_value(1)
    button(page, "Rate").click().run()
    before = page.success[0].value
    page.feedback[0].set_value(0)
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "add", full)
        change(page)
    assert "could not be stored" in page.error[0].value.replace("\\", "") and page.success[0].value == before
    change(page)
    assert not page.error and page.success[0].value != before


def test_a_dead_endpoint_is_one_sentence(monkeypatch: pytest.MonkeyPatch, adapted: Path) -> None:
    monkeypatch.chdir(adapted)
    monkeypatch.setenv("BILORA_ENDPOINT", "http://user:password@127.0.0.1:9/v1?key=secret")
    page = AppTest.from_file(str(ROOT / "hf_space" / "app.py"), default_timeout=WAIT_S).run()
    message = page.error[0].value.replace("\\", "")
    assert message == (
        "Endpoint 'http://127.0.0.1:9/v1' gave no usable answer: the connection was refused: no server listens there; "
        "start that server, or correct BILORA_ENDPOINT or BILORA_ENDPOINT_KEY."
    )
    assert [element.label for element in page.button] == ["Try again now"] and not page.exception


def test_a_bundle_of_another_base_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, adapted: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(adapted)
    monkeypatch.setenv("BILORA_BUNDLE", str(tmp_path))
    page = AppTest.from_file(str(ROOT / "hf_space" / "app.py"), default_timeout=WAIT_S).run()
    assert "is not a bundle" in page.error[0].value
    (tmp_path / "manifest.json").write_text('{"adapters": {}, "base": {"id": "other"}, "files": {}}')
    page = AppTest.from_file(str(ROOT / "hf_space" / "app.py"), default_timeout=WAIT_S).run()
    assert "trained on other, not on models/smoke" in page.error[0].value
