"""The verb app, and the entry point hf_space/app.py."""

from __future__ import annotations

import atexit
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bilora.app.assert_runs import AssertRunner
    from bilora.app.conversation import Answer, Backend, RatingInput, UserQuestion
    from bilora.params import Params
    from bilora.tasks.task import Task
    from bilora.workspace import Workspace

ENDPOINT_VARIABLE, ENDPOINT_KEY_VARIABLE, BUNDLE_VARIABLE = "BILORA_ENDPOINT", "BILORA_ENDPOINT_KEY", "BILORA_BUNDLE"


def app(port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501) -> None:
    """Open the page on which the adapters are tried and rated."""
    from bilora.cli.ports import bind
    from bilora.errors import BadData
    from bilora.workspace import Workspace

    script = Workspace(Path()).page_script
    if not script.is_file():
        raise BadData(script, "there is no page here; change into a checkout of BiLoRA.")
    for taken in bind("localhost", port):  # Streamlit's own fault would be a crash, seconds later
        taken.close()
    from streamlit.web.cli import main

    # In this process, so that a signal to it ends the page, and nothing is left behind.
    main(["run", str(script), "--server.port", str(port)], prog_name="streamlit", standalone_mode=False)


def page() -> None:
    """Draw the page. Streamlit runs this again after every action; what is slow is cached between the runs."""
    import streamlit as st

    from bilora.app.page import draw_page, draw_unavailable
    from bilora.errors import BiloraError
    from bilora.workspace import Workspace

    st.set_page_config(page_title="BiLoRA", layout="wide")
    tasks: dict[str, Task] = {}
    workspace = Workspace(Path())
    try:
        params, tasks = workspace.params, workspace.tasks
        with st.spinner("Asking the model server …" if os.environ.get(ENDPOINT_VARIABLE) else "Loading the model …"):
            offer = current_backend(workspace)
    except BiloraError as error:
        draw_unavailable(tasks, _rate, error)
        return
    generation = {name: one.generation for name, one in params.tasks.items()}
    draw_page(offer, tasks, generation, _assert_runner(workspace), _rate)


def current_backend(workspace: Workspace) -> Backend:
    """Return who answers, loaded once in this process and again when other adapters or params are there."""
    import streamlit as st

    return st.cache_resource(show_spinner=False)(_offer)(
        str(workspace.root), workspace.params.model_dump_json(), _fingerprint(workspace)
    )


def served_bundle(workspace: Workspace) -> str:
    """Return the bundle that the environment or the Space's release.json names; empty for the workspace's adapters."""
    from bilora.publishing.space_release import read_space_release

    return os.environ.get(BUNDLE_VARIABLE) or read_space_release(workspace.root).bundle


def _assert_runner(workspace: Workspace) -> AssertRunner:
    """Return what runs answers with the asserts of their questions, made once in this process."""
    import streamlit as st

    return st.cache_resource(show_spinner=False)(_sandboxed_runner)(
        str(workspace.root), workspace.params.sandbox.model_dump_json()
    )


def _sandboxed_runner(root: str, sandbox_json: str) -> AssertRunner:
    from bilora.app.assert_runs import AssertRunner
    from bilora.workspace import Workspace

    sandbox = Workspace(Path(root)).sandbox()
    atexit.register(sandbox.close)  # Streamlit does not say when it ends
    return AssertRunner(sandbox.run)


def _fingerprint(workspace: Workspace) -> str:
    """Change when other adapters are there, so that the page serves the new ones."""
    bundle = served_bundle(workspace)
    return " ".join([workspace.adapters_stamp(bundle or None), os.environ.get(ENDPOINT_VARIABLE, ""), bundle])


def _offer(
    root: str, params_json: str, fingerprint: str
) -> Backend:  # a name with a leading underscore would not be hashed
    from bilora.app.conversation import Backend
    from bilora.cli.engines import adapters_to_serve, load_engine
    from bilora.workspace import Workspace

    workspace = Workspace(Path(root))
    params = workspace.params
    if url := os.environ.get(ENDPOINT_VARIABLE):
        return remote_backend(url, params)
    base = workspace.base()
    engine = load_engine(workspace, adapters_to_serve(workspace, served_bundle(workspace) or None), batch_size=1)
    return Backend(
        engine=engine,
        adapters={name: sha256 for name, sha256 in engine.models().items() if sha256},
        base=base.id,
        base_revision=base.identity,
        place="in this process",
    )


def remote_backend(url: str, params: Params) -> Backend:
    """Return who answers at a server with the chat completions API.

    Raises:
        BadData: `url` is no address.
        Unreachable: no server answers there.
    """
    from bilora.api_keys import environment_key
    from bilora.app.conversation import Backend
    from bilora.errors import BadData, Unreachable
    from bilora.external_services import Endpoint
    from bilora.inference.endpoint.engine import EndpointEngine

    try:
        settings = Endpoint(name="endpoint", base_url=url, model="base")
    except ValueError:
        raise BadData(ENDPOINT_VARIABLE, "is no address; it begins with http:// or https://.") from None
    settings = settings.model_copy(update={"name": settings.address})  # errors name it
    engine = EndpointEngine(settings, environment_key(ENDPOINT_KEY_VARIABLE), retries=1)  # a person is waiting
    try:
        models = engine.models()
    except Unreachable as error:
        advice = f"start that server, or correct {ENDPOINT_VARIABLE} or {ENDPOINT_KEY_VARIABLE}"
        raise Unreachable(f"{str(error).rstrip('.')}; {advice}.") from None
    return Backend(
        engine=engine,
        adapters={name: "" for name in models if name in params.tasks},
        base="a remote model",
        base_revision="",
        place=f"at {settings.address}",
    )


def _rate(question: UserQuestion, answer: Answer, entered: RatingInput) -> str:
    """Store a rating, or a change of it, and return the id of the rating that counts now; it is then on the disk."""
    from dataclasses import asdict
    from datetime import UTC, datetime
    from importlib.metadata import version

    import streamlit as st

    from bilora.feedback.events import new_event_id
    from bilora.feedback.outbox import Outbox
    from bilora.records import Rating
    from bilora.workspace import Workspace

    session = st.session_state.setdefault("session", secrets.token_hex(8))  # of this page only, and of nobody else
    rating = Rating(
        event_id=new_event_id(after=entered.supersedes),
        generation_id=answer.id,
        session=session,
        task=question.task,
        prompt=question.prompt,
        completion=answer.text,
        adapter_sha256=answer.adapter_sha256 or None,
        base_revision=answer.base_revision,
        decoding=question.generation.model_dump(exclude={"batch_size"}),
        app_version=version("bilora"),
        created_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        **asdict(entered),
    )
    with Outbox(Workspace(Path()).outbox) as outbox:
        outbox.add(rating)
        valid = outbox.valid_rating(answer.id)
    return valid.event_id if valid else rating.event_id
