"""Metrics: one per module, each with its own scale; no mean mixes metrics."""

from bilora.metrics.bleu import SmoothedBleu
from bilora.metrics.functional import Functional
from bilora.metrics.judged import EndpointJudge
from bilora.metrics.sacre import SacreMetrics

__all__ = ["EndpointJudge", "Functional", "SacreMetrics", "SmoothedBleu"]
