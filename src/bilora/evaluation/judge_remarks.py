"""Remarks that help to interpret a judge's ratings."""

from __future__ import annotations

from bilora.metrics.judged import model_family
from bilora.params import Params
from bilora.records import JudgeCheck


def judge_remarks(params: Params, base_id: str, check: JudgeCheck | None) -> list[str]:
    """Return a sentence per system that the judge may favour, and one on the last judge check."""
    if params.judge is None:
        return []
    judge = params.judge.model
    models = [base_id, *(endpoint.model for endpoint in params.endpoints)]
    remarks = [
        f"The judge {judge} is of the same model family as the evaluated model {model}, and may favour it."
        for model in models
        if model_family(model) == model_family(judge)
    ]
    if check is None or check.model != judge:
        return [*remarks, f"The judge {judge} has not been checked; run `bilora judge check`."]
    return [*remarks, f"Judge check: {check.sentence()}"]
