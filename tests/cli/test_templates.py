"""A base's chat template at the command line: unusable ones are refused, and adapters are bound to theirs."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from support.checkouts import ROOT
from support.command_line import bilora
from support.random_adapters import write_random_adapter

from bilora.bases.kinds.folder import FolderBase
from bilora.storage import sha256_tree

pytestmark = pytest.mark.slow
TEMPLATE = (ROOT / "models" / "smoke" / "chat_template.jinja").read_text(encoding="utf-8")
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
STRICT = "{% if messages[0].role != 'tool' %}{{ raise_exception('Only tools speak here') }}{% endif %}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with params, a copy of the smoke base, and one adapter for it."""
    shutil.copytree(ROOT / "models" / "smoke", tmp_path / "models" / "smoke")
    shutil.copyfile(ROOT / "requirements.txt", tmp_path / "requirements.txt")
    document = yaml.safe_load((ROOT / "profiles" / "smoke.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    with contextlib.chdir(tmp_path):
        write_random_adapter(Path("adapters") / "codegen", FolderBase.at("models/smoke"), ["qkv_proj"], seed=1)
    return tmp_path


def write(place: Path, template: str) -> None:
    (place / "models" / "smoke" / "chat_template.jinja").write_text(template, encoding="utf-8")


VERBS = (["generate", "hi", "-m", "codegen"], ["chat", "-m", "codegen"], ["evaluate", "codegen"])


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_an_adapter_of_another_template_is_refused_with_the_reason(place: Path, verb: list[str]) -> None:
    write(place, REFUSING + TEMPLATE)
    code, _, err = bilora(place, *verb, stdin="hi\n")
    assert code == 2 and "was trained on models/smoke with another chat_template.jinja; run `dvc repro" in err
    assert len(err.strip().splitlines()) == 1


def test_a_bundle_of_another_template_is_refused_with_the_reason(place: Path) -> None:
    base = {f"base/{name}": digest for name, digest in sha256_tree(place / "models" / "smoke").items()}
    output = {"adapters": {}, "base": {"id": "models/smoke", "revision": None, "path": "base"}, "files": base}
    (place / "bundle").mkdir()
    (place / "bundle" / "manifest.json").write_text(json.dumps(output), encoding="utf-8")
    write(place, REFUSING + TEMPLATE)
    code, _, err = bilora(place, "generate", "hi", "--bundle", "bundle")
    assert code == 2 and "another version of models/smoke than the one here (other: chat_template.jinja)" in err


def test_the_base_answers_and_an_adapter_of_another_template_is_skipped(place: Path) -> None:
    write(place, REFUSING + TEMPLATE)
    code, out, err = bilora(place, "generate", "hi", "--max-tokens", "4")
    assert code == 0 and out.strip()
    assert "skipped: adapters/codegen: this adapter was trained on models/smoke with another" in err
    assert "has no system role: the system text is put before the first question" in err


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{% for m in messages %}{{ m.content }}", "its chat template has a syntax error in line 1"),
        (STRICT + TEMPLATE, "its chat template rejects this chat (Only tools speak here)."),
        ("{{ messages[0].parts[0].text }}", "its chat template fails on this chat"),
    ],
)
@pytest.mark.parametrize("verb", [["generate", "hi"], ["chat"], ["serve"]], ids=lambda verb: verb[0])
def test_a_template_that_cannot_be_used_is_one_sentence(
    place: Path, verb: list[str], template: str, sentence: str
) -> None:
    shutil.rmtree(place / "adapters")
    write(place, template)
    code, _, err = bilora(place, *verb, stdin="hi\n")
    assert code == 2 and sentence in err and len(err.strip().splitlines()) == 1


def test_the_doctor_checks_the_template(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bilora.cli import doctor

    monkeypatch.chdir(place)
    assert doctor._base().startswith("models/smoke at ") and "template" not in doctor._base()
    write(place, REFUSING + TEMPLATE)
    assert "has no system role" in doctor._base()
    write(place, STRICT + TEMPLATE)
    with pytest.raises(doctor.Fault, match="Only tools speak here"):
        doctor._base()


def test_a_running_server_does_not_load_an_adapter_of_another_template(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bilora.cli import serve
    from bilora.serving import app as serving_app

    monkeypatch.chdir(place)
    configs: list[serving_app.ServerConfig] = []
    monkeypatch.setattr(serve, "_run", lambda served, *_, **__: configs.append(served))
    assert bilora(place, "serve")[0] == 0
    before = configs[0].engine.models()
    assert configs[0].reload and configs[0].reload() == 0
    write(place, REFUSING + TEMPLATE)
    write_random_adapter(Path("adapters") / "codegen", FolderBase.at("models/smoke"), ["qkv_proj"], seed=2)
    with monkeypatch.context() as patch:
        output: list[str] = []
        patch.setattr("bilora.serving.reload.LOG.warning", lambda text, fault, **_: output.append(str(fault)))
        assert configs[0].reload() == 0 and configs[0].engine.models() == before
    assert output == ["models/smoke: its files have changed; restart the server to load them."]
    write(place, TEMPLATE)
    write_random_adapter(Path("adapters") / "codegen", FolderBase.at("models/smoke"), ["qkv_proj"], seed=3)
    assert configs[0].reload() == 1 and configs[0].engine.models() != before
