"""Look up the newest commit of a branch of a hub repository."""

from __future__ import annotations

from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from bilora.errors import BadData, Unreachable
from bilora.hub.client import HUB_ERRORS, describe_error


def newest_commit(api: HfApi, repo_id: str, kind: Literal["model", "dataset"], revision: str | None) -> str:
    """Return the commit of a branch or tag, by default of the main branch.

    Raises:
        BadData: the repository or revision does not exist, or the token cannot read it.
        Unreachable: the hub did not respond.
    """
    info = api.model_info if kind == "model" else api.dataset_info
    try:
        commit = info(repo_id, revision=revision).sha
    except OfflineModeIsEnabled:
        raise Unreachable(f"The {kind} {repo_id} was not looked up: unset HF_HUB_OFFLINE, then run again.") from None
    except RevisionNotFoundError:
        raise BadData(repo_id, f"the {kind} has no revision {revision}; correct it, or write null.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise BadData(
            repo_id, f"the hub has no such {kind}, or it is private: check the id, and HF_TOKEN if it is private."
        ) from None
    except HUB_ERRORS as error:
        raise Unreachable(
            f"The {kind} {repo_id} could not be looked up on the hub ({describe_error(error)}). Try again."
        ) from None
    if commit is None:
        raise Unreachable(f"The hub returned no commit of the {kind} {repo_id}. Try again.")
    return commit
