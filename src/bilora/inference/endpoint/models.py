"""Check that endpoints have their configured models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bilora.api_keys import endpoint_key
from bilora.external_services import Endpoint
from bilora.inference.endpoint.engine import EndpointEngine


def missing_models(endpoints: Sequence[Endpoint], keys: Mapping[str, str]) -> dict[str, str]:
    """Return a warning (endpoint's name → sentence) per endpoint that lists models, but not its configured one."""
    missing = {}
    for endpoint in endpoints:
        with EndpointEngine(endpoint, endpoint_key(endpoint.key_env, keys)) as engine:
            if warning := engine.missing_model():
                missing[endpoint.name] = warning
    return missing
