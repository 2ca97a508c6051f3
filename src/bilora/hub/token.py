"""Get the token for requests to the hub."""

from __future__ import annotations

import os

from bilora.api_keys import environment_key
from bilora.errors import Unreachable


def hub_token() -> str | None:
    """Return HF_TOKEN; without it, the token for a CI job's identity if HF_OIDC_RESOURCE is set; else None.

    Raises:
        BadData: HF_TOKEN has characters that no HTTP header may have.
        Unreachable: the exchange of the CI job's identity failed.
    """
    token = environment_key("HF_TOKEN")
    if token or not os.environ.get("HF_OIDC_RESOURCE"):
        return token
    from huggingface_hub import get_token
    from huggingface_hub.errors import OIDCError

    from bilora.hub.client import HUB_ERRORS, describe_error

    try:
        return get_token()
    except (OIDCError, *HUB_ERRORS) as error:
        raise Unreachable(
            f"The hub returned no token for HF_OIDC_RESOURCE ({describe_error(error)}); set HF_TOKEN instead."
        ) from None
