"""The token that is sent to the hub."""

from __future__ import annotations

import os

from bilora.api_keys import environment_key
from bilora.errors import Unreachable


def hub_token() -> str | None:
    """Return HF_TOKEN, or what a CI's identity is exchanged for where HF_OIDC_RESOURCE asks for that; else None.

    Raises:
        BadData: the token cannot be sent.
        Unreachable: the exchange was asked for and failed.
    """
    token = environment_key("HF_TOKEN")
    if token or not os.environ.get("HF_OIDC_RESOURCE"):
        return token
    from huggingface_hub import get_token
    from huggingface_hub.errors import OIDCError

    from bilora.hub.client import FAULTS, why

    try:
        return get_token()
    except (OIDCError, *FAULTS) as error:
        raise Unreachable(f"The hub gave no token for HF_OIDC_RESOURCE ({why(error)}); set HF_TOKEN instead.") from None
