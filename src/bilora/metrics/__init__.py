"""What answers are worth: one metric a module, each on its own scale, never mixed in one mean."""

from bilora.metrics.bleu import SmoothedBleu
from bilora.metrics.functional import Functional
from bilora.metrics.judged import EndpointJudge
from bilora.metrics.sacre import SacreMetrics

__all__ = ["EndpointJudge", "Functional", "SacreMetrics", "SmoothedBleu"]
