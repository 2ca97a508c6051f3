"""Whether endpoints have the models that they are to answer with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bilora.api_keys import endpoint_key
from bilora.inference.endpoint.engine import EndpointEngine
from bilora.outside import Endpoint


def missing_models(endpoints: Sequence[Endpoint], keys: Mapping[str, str]) -> dict[str, str]:
    """Ask endpoints for their models; return by name what to say of those that list models, but not theirs."""
    missing = {}
    for endpoint in endpoints:
        with EndpointEngine(endpoint, endpoint_key(endpoint.key_env, keys)) as engine:
            if remark := engine.missing_model():
                missing[endpoint.name] = remark
    return missing
