"""The card's licence is never more permissive than a part, and names every part's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from bilora.bases.kinds.hub import HubBase
from bilora.publishing.bundle import build_bundle
from bilora.publishing.bundle_info import BundleInfo
from bilora.publishing.licences import OTHER, SAME, licence_fields

BASE = HubBase(id="models/smoke", hub="models/smoke")


@pytest.mark.parametrize(
    ("base", "data", "fields"),
    [
        ("mit", ["MIT"], {"license": "mit"}),
        ("Apache-2.0", ["apache-2.0", "Apache-2.0"], {"license": "apache-2.0"}),
        ("apache-2.0", ["MIT"], {"license": "other", "license_name": "apache-2.0-and-mit"}),
        ("mit", ["CC-BY-NC-4.0", "MIT"], {"license": "other", "license_name": "cc-by-nc-4.0-and-mit"}),
        ("cc-by-nc-4.0", ["CC-BY-NC-4.0"], {"license": "other", "license_name": "cc-by-nc-4.0"}),
        ("cc-by-sa-4.0", ["CC-BY-SA-4.0"], {"license": "other", "license_name": "cc-by-sa-4.0"}),
        ("unknown", ["MIT"], {"license": "other", "license_name": "mit-and-unknown"}),
        ("mit", ["MIT AND MIT"], {"license": "mit"}),
        ("mit", ["MIT AND GPL-3.0"], {"license": "other", "license_name": "gpl-3.0-and-mit"}),
        ("mit", ["MIT OR GPL-3.0"], {"license": "other", "license_name": "mit-and-mit-or-gpl-3.0"}),
    ],
)
def test_only_one_permissive_licence_of_all_parts_is_the_cards(
    bundle_info: Callable[..., BundleInfo], base: str, data: list[str], fields: dict[str, str]
) -> None:
    details = bundle_info(BASE, licence=base)
    details = replace(details, tasks={"codegen": replace(details.tasks["codegen"], licences=tuple(data))})
    assert licence_fields(["codegen"], details) == fields


def test_each_card_names_the_licences_of_its_own_parts(inputs: Any, bundle_info: Callable[..., BundleInfo]) -> None:
    details = bundle_info(BASE)
    restricted = replace(details.tasks["docstring"], licences=("CC-BY-NC-4.0", "a | b"))
    details = replace(details, tasks={**details.tasks, "docstring": restricted})
    files = build_bundle(inputs.folders, inputs.verdicts, inputs.results, details)
    whole, codegen, docstring = (
        ModelCard(files[name].decode()) for name in ("README.md", "codegen/README.md", "docstring/README.md")
    )
    assert codegen.data.license == "mit" and SAME in codegen.text and "CC-BY-NC" not in codegen.content
    for card in (whole, docstring):
        assert (card.data.license, card.data.license_name) == ("other", "a-b-and-cc-by-nc-4.0-and-mit")
        assert OTHER in card.text and "| data of `docstring` | CC-BY-NC-4.0, a \\| b |" in card.text
        assert "| `models/smoke` | mit |" in card.text
    assert "| data of `codegen` | MIT |" in whole.text
