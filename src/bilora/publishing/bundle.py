"""What is published: one folder per adapter, cards, and a manifest that names every byte.

README.md  manifest.json  .eval_results/TASK.yaml
TASK/adapter_config.json  TASK/adapter_model.safetensors  TASK/README.md
TASK/tokenizer.json  TASK/tokenizer_config.json
base/…                    the base, if others could get it neither from the hub nor from a package
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from bilora.bases.base import Base
from bilora.bases.identity import base_identity
from bilora.errors import BadData, MissingStep
from bilora.publishing.bundle_info import BASE_FOLDER, BundleInfo
from bilora.publishing.card import CARD, adapter_card, bundle_card, eval_results
from bilora.publishing.manifest import (
    MANIFEST,
    BundledAdapter,
    BundledBase,
    BundledSampling,
    Manifest,
    bundled_verdict,
    files_sha256,
    parse_manifest,
)
from bilora.requests import SamplingParams
from bilora.results import Results, Verdict
from bilora.storage import ADAPTER_FILES, sha256_bytes, sha256_json

EVAL_RESULTS = ".eval_results/{task}.yaml"


def build_bundle(
    adapters: Mapping[str, Path],
    verdicts: Mapping[str, Verdict],
    results: Results,
    info: BundleInfo,
) -> dict[str, bytes]:
    """Gather what is published as POSIX path to bytes; equal input gives equal bytes.

    The adapters' files go in untouched, so a verdict bound to them holds for what is published. The tokenizer's files
    are beside them. Training state in the same folder is left out.

    Args:
        adapters: folder of each task's adapter.
        verdicts: the gate's verdict by task; only what stays true of these bytes is written down.
        results: for the cards.
        info: for the cards; its base is what each adapter_config.json must name.

    Raises:
        MissingStep: an adapter has not been trained.
        BadData: an adapter holds more than LoRA weights, another base, or a path of this machine;
            or there is no adapter at all.
    """
    if not adapters:
        raise BadData("adapters", "there is none to publish. Run `dvc repro train` first.")
    base = info.base
    files = _adapter_files(adapters, base)
    carried = base.bundled_files()
    files |= {f"{BASE_FOLDER}/{path}": data for path, data in carried.items()}
    files[CARD] = bundle_card(sorted(adapters), results, info).encode()
    for task in sorted(adapters):
        files |= {f"{task}/{name}": data for name, data in info.tokenizer_files.items()}
        files[f"{task}/{CARD}"] = adapter_card(task, results, info).encode()
        if text := eval_results(task, results, info):
            files[EVAL_RESULTS.format(task=task)] = text.encode()
    manifest = Manifest(
        schema=1,
        base=_bundled_base(base, carried),
        adapters={
            task: BundledAdapter(
                path=task,
                sha256=bundled_sha256(files, task),
                verdict=bundled_verdict(verdicts[task]) if task in verdicts else None,
                sampling=_bundled_sampling(info.tasks[task].sampling),
            )
            for task in sorted(adapters)
        },
        files=files_sha256(files),
    )
    files[MANIFEST] = manifest.to_bytes()
    return files


def _bundled_base(base: Base, carried: Mapping[str, bytes]) -> BundledBase:
    """Return what the manifest says of the base; fields that are not set are not written."""
    found: dict[str, object] = {"id": base.id, "revision": base.revision}
    if base.hub is None:
        found |= {"path": BASE_FOLDER, "settings": {"kind": "folder", "path": BASE_FOLDER, "dtype": base.dtype}}
    elif base.settings is not None:
        found["settings"] = base.settings.model_dump(mode="json", exclude_defaults=True)
    if base.requirement is not None:
        found |= {"requirement": base.requirement, "package_files": base.files()}
    if base.identity != base_identity(base.revision, {name: sha256_bytes(data) for name, data in carried.items()}):
        found["identity"] = base.identity
    return BundledBase.model_validate(found)


def _bundled_sampling(sampling: SamplingParams) -> BundledSampling:
    return BundledSampling(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        frequency_penalty=sampling.frequency_penalty,
    )


def _adapter_files(adapters: Mapping[str, Path], base: Base) -> dict[str, bytes]:
    """Read and check the two files of each adapter."""
    files: dict[str, bytes] = {}
    for task, folder in sorted(adapters.items()):
        for part in ADAPTER_FILES:
            if not (folder / part).is_file():
                raise MissingStep(folder / part, "train")
            files[f"{task}/{part}"] = (folder / part).read_bytes()
        _check_config(folder / ADAPTER_FILES[0], files[f"{task}/{ADAPTER_FILES[0]}"], base)
        _check_weights(folder / ADAPTER_FILES[1], files[f"{task}/{ADAPTER_FILES[1]}"])
    return files


def bundled_sha256(files: Mapping[str, bytes], task: str) -> str:
    """Same as `storage.adapter_sha256`, of the bytes in a bundle."""
    return sha256_json({part: sha256_bytes(files[f"{task}/{part}"]) for part in ADAPTER_FILES})


def bundled_tasks(files: Mapping[str, bytes]) -> list[str]:
    """Names of the adapters that a bundle's manifest lists, sorted."""
    return sorted(parse_manifest("bundle", files[MANIFEST]).adapters)


def extract_adapter(files: Mapping[str, bytes], task: str) -> dict[str, bytes]:
    """Return a bundle's one adapter as a repository of its own: the same bytes, at the root.

    It depends on nothing but the bundle, so an old bundle gives its old repositories of single adapters again.
    """
    manifest = parse_manifest("bundle", files[MANIFEST])
    own = {name.removeprefix(f"{task}/"): data for name, data in files.items() if name.startswith(f"{task}/")}
    results = EVAL_RESULTS.format(task=task)
    own |= {results: files[results]} if results in files else {}
    alone = manifest.model_copy(
        update={
            "base": _without_folder(manifest.base),
            "adapters": {task: manifest.adapters[task].model_copy(update={"path": "."})},
            "files": files_sha256(own),
        }
    )
    return {**own, MANIFEST: alone.to_bytes()}


def _without_folder(base: BundledBase) -> BundledBase:
    """Return what the manifest of a repository says that has an adapter alone."""
    excluded = {"path", "settings"} if base.path else {"path"}
    return BundledBase.model_validate(base.model_dump(exclude=excluded, exclude_unset=True))


def check_paths(place: Path | str, files: Mapping[str, bytes]) -> None:
    """Refuse what no store may take.

    Raises:
        BadData: there is no manifest, or a path would leave the store's folder.
    """
    if MANIFEST not in files:
        raise BadData(place, f"a bundle without {MANIFEST} cannot be published.")
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name:
            raise BadData(place, f"the bundle names {name!r}, which is no path inside it.")


def _check_config(path: Path, data: bytes, base: Base) -> None:
    try:
        config = json.loads(data)
    except ValueError as error:
        raise BadData(path, f"not JSON ({error}). Train the adapter again.") from None
    found = (config.get("base_model_name_or_path"), config.get("revision"))
    if found != (base.id, base.revision):
        raise BadData(
            path,
            f"made for base {found[0]!r} at revision {found[1]!r}, but params.yaml names "
            f"{base.id!r} at {base.revision!r}. Train the adapter again.",
        )
    if config.get("modules_to_save"):
        raise BadData(path, "`modules_to_save` is set; only LoRA weights are published.")
    for place, text in _strings(config):
        if PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith("~"):
            raise BadData(path, f"`{place}` holds a path of this machine. Name the base by a relative path or hub id.")


def _strings(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, place)


def _check_weights(path: Path, data: bytes) -> None:
    """Read the safetensors header: eight bytes of length, then JSON with the tensors' names."""
    try:
        length = int.from_bytes(data[:8], "little")
        tensors = json.loads(data[8 : 8 + length]).keys() - {"__metadata__"}
    except (ValueError, AttributeError):
        raise BadData(path, "not a safetensors file. Train the adapter again.") from None
    if other := sorted(name for name in tensors if ".lora_" not in name):
        raise BadData(path, f"holds {other[0]!r}, which is no LoRA weight; only LoRA weights are published.")
    if not tensors:
        raise BadData(path, "holds no weights. Train the adapter again.")
