"""What one has to know of a judge to read its grades."""

from __future__ import annotations

from bilora.metrics.judged import model_family
from bilora.params import Params
from bilora.records import JudgeCheck


def judge_remarks(params: Params, base_id: str, check: JudgeCheck | None) -> list[str]:
    """Return in sentences whom the judge may favour, and how it did when it was checked."""
    if params.judge is None:
        return []
    model = params.judge.model
    contestants = [base_id, *(endpoint.model for endpoint in params.endpoints)]
    remarks = [
        f"The judge {model} is of one model_family with the contestant {one}, and may favour it."
        for one in contestants
        if model_family(one) == model_family(model)
    ]
    if check is None or check.model != model:
        return [*remarks, f"The judge {model} was not checked; `bilora judge check` does."]
    return [*remarks, f"Judge check: {check.sentence()}"]
