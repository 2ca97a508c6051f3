"""Build the published bundle: one folder per adapter, model cards, and a manifest with the hash of every file.

README.md  manifest.json  .eval_results/TASK.yaml
TASK/adapter_config.json  TASK/adapter_model.safetensors  TASK/README.md
TASK/tokenizer.json  TASK/tokenizer_config.json
base/…                    the base, if it is available neither on the hub nor as a package
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
from bilora.results import Results, Verdict
from bilora.storage import ADAPTER_FILES, sha256_bytes, sha256_json

EVAL_RESULTS = ".eval_results/{task}.yaml"


def build_bundle(
    adapters: Mapping[str, Path],
    verdicts: Mapping[str, Verdict],
    results: Results,
    info: BundleInfo,
) -> dict[str, bytes]:
    """Return the bundle's files, POSIX path → bytes; equal arguments return equal bytes.

    The adapters' files are copied unchanged, so that their verdicts remain valid; the training state beside them is
    not published.

    Args:
        adapters: the folder of each task's adapter.
        verdicts: the gate's verdict by task; see `bundled_verdict` for what the manifest contains.
        results: the results on the cards.
        info: everything else; each adapter_config.json must name its base.

    Raises:
        MissingStep: an adapter has not been trained.
        BadData: there is no adapter, or one contains other weights than LoRA's, another base, or a path of this
            machine.
    """
    if not adapters:
        raise BadData("adapters", "there is no adapter to publish. Run `dvc repro train` first.")
    base = info.base
    files = _adapter_files(adapters, base)
    base_files = base.bundled_files()
    files |= {f"{BASE_FOLDER}/{path}": data for path, data in base_files.items()}
    files[CARD] = bundle_card(sorted(adapters), results, info).encode()
    for task in sorted(adapters):
        files |= {f"{task}/{name}": data for name, data in info.tokenizer_files.items()}
        files[f"{task}/{CARD}"] = adapter_card(task, results, info).encode()
        if text := eval_results(task, results, info):
            files[EVAL_RESULTS.format(task=task)] = text.encode()
    manifest = Manifest(
        schema=1,
        base=_bundled_base(base, base_files),
        adapters={
            task: BundledAdapter(
                path=task,
                sha256=bundled_sha256(files, task),
                verdict=bundled_verdict(verdicts[task]) if task in verdicts else None,
                sampling=BundledSampling.from_params(info.tasks[task].sampling),
            )
            for task in sorted(adapters)
        },
        files=files_sha256(files),
    )
    files[MANIFEST] = manifest.to_bytes()
    return files


def _bundled_base(base: Base, base_files: Mapping[str, bytes]) -> BundledBase:
    """Return the manifest's entry of the base; unset fields are not written."""
    fields: dict[str, object] = {"id": base.id, "revision": base.revision}
    if base.hub is None:
        fields |= {"path": BASE_FOLDER, "settings": {"kind": "folder", "path": BASE_FOLDER, "dtype": base.dtype}}
    elif base.settings is not None:
        fields["settings"] = base.settings.model_dump(mode="json", exclude_defaults=True)
    if base.requirement is not None:
        fields |= {"requirement": base.requirement, "package_files": base.files()}
    if base.identity != base_identity(base.revision, {name: sha256_bytes(data) for name, data in base_files.items()}):
        fields["identity"] = base.identity
    return BundledBase.model_validate(fields)


def _adapter_files(adapters: Mapping[str, Path], base: Base) -> dict[str, bytes]:
    """Return the two files of each adapter after checking them."""
    files: dict[str, bytes] = {}
    for task, folder in sorted(adapters.items()):
        for name in ADAPTER_FILES:
            if not (folder / name).is_file():
                raise MissingStep(folder / name, "train")
            files[f"{task}/{name}"] = (folder / name).read_bytes()
        _check_config(folder / ADAPTER_FILES[0], files[f"{task}/{ADAPTER_FILES[0]}"], base)
        _check_weights(folder / ADAPTER_FILES[1], files[f"{task}/{ADAPTER_FILES[1]}"])
    return files


def bundled_sha256(files: Mapping[str, bytes], task: str) -> str:
    """Return the SHA-256 of a bundled adapter, as `storage.adapter_sha256` does for a folder."""
    return sha256_json({name: sha256_bytes(files[f"{task}/{name}"]) for name in ADAPTER_FILES})


def bundled_tasks(files: Mapping[str, bytes]) -> list[str]:
    """Return the tasks of a bundle's adapters, sorted."""
    return sorted(parse_manifest("bundle", files[MANIFEST]).adapters)


def extract_adapter(files: Mapping[str, bytes], task: str) -> dict[str, bytes]:
    """Return the files of one adapter's repository: the bundle's files of this adapter, at the root.

    The result depends on the bundle only, so publishing an old bundle again restores the old repositories.
    """
    manifest = parse_manifest("bundle", files[MANIFEST])
    extracted = {name.removeprefix(f"{task}/"): data for name, data in files.items() if name.startswith(f"{task}/")}
    results = EVAL_RESULTS.format(task=task)
    extracted |= {results: files[results]} if results in files else {}
    extracted_manifest = manifest.model_copy(
        update={
            "base": _without_folder(manifest.base),
            "adapters": {task: manifest.adapters[task].model_copy(update={"path": "."})},
            "files": files_sha256(extracted),
        }
    )
    return {**extracted, MANIFEST: extracted_manifest.to_bytes()}


def _without_folder(base: BundledBase) -> BundledBase:
    """Return the base's entry for the manifest of one adapter's repository."""
    excluded = {"path", "settings"} if base.path else {"path"}
    return BundledBase.model_validate(base.model_dump(exclude=excluded, exclude_unset=True))


def check_paths(location: Path | str, files: Mapping[str, bytes]) -> None:
    """Check a bundle's paths before they are written.

    Args:
        location: of the bundle, for the error.

    Raises:
        BadData: there is no manifest, or a path is not inside the bundle.
    """
    if MANIFEST not in files:
        raise BadData(location, f"a bundle without {MANIFEST} cannot be published.")
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name:
            raise BadData(location, f"the bundle contains the path {name!r}, which is not inside it.")


def _check_config(path: Path, data: bytes, base: Base) -> None:
    try:
        config = json.loads(data)
    except ValueError as error:
        raise BadData(path, f"not JSON ({error}). Train the adapter again.") from None
    base_id, revision = config.get("base_model_name_or_path"), config.get("revision")
    if (base_id, revision) != (base.id, base.revision):
        raise BadData(
            path,
            f"trained on base {base_id!r} at revision {revision!r}, but params.yaml names "
            f"{base.id!r} at {base.revision!r}. Train the adapter again.",
        )
    if config.get("modules_to_save"):
        raise BadData(path, "`modules_to_save` is set; only LoRA weights are published.")
    for key, text in _strings(config):
        if PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith("~"):
            raise BadData(path, f"`{key}` contains a path of this machine. Name the base by a relative path or hub id.")


def _strings(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the text of every string."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)


def _check_weights(path: Path, data: bytes) -> None:
    """Check the tensor names in the safetensors header: eight bytes with its length, then JSON."""
    try:
        length = int.from_bytes(data[:8], "little")
        tensors = json.loads(data[8 : 8 + length]).keys() - {"__metadata__"}
    except (ValueError, AttributeError):
        raise BadData(path, "not a safetensors file. Train the adapter again.") from None
    if other := sorted(name for name in tensors if ".lora_" not in name):
        raise BadData(path, f"contains {other[0]!r}, which is not a LoRA weight; only LoRA weights are published.")
    if not tensors:
        raise BadData(path, "contains no weights. Train the adapter again.")
