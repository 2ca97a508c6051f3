"""The command app, and the entry point hf_space/app.py."""

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
    """Open the page to use the adapters and rate their answers."""
    from bilora.cli.ports import bind
    from bilora.errors import BadData
    from bilora.workspace import Workspace

    script = Workspace(Path()).page_script
    if not script.is_file():
        raise BadData(script, "it does not exist; run this command in a checkout of BiLoRA.")
    for listener in bind("localhost", port):  # if the port is taken, Streamlit crashes seconds later
        listener.close()
    from streamlit.web.cli import main

    # In this process, so that a signal ends the page and leaves no child.
    main(["run", str(script), "--server.port", str(port)], prog_name="streamlit", standalone_mode=False)


def page() -> None:
    """Draw the page. Streamlit calls this again after every action; slow parts are cached between the calls."""
    import streamlit as st

    from bilora.app.page import draw_page, draw_unavailable
    from bilora.errors import BiloraError
    from bilora.workspace import Workspace

    st.set_page_config(page_title="BiLoRA", layout="wide")
    tasks: dict[str, Task] = {}
    workspace = Workspace(Path())
    try:
        params, tasks = workspace.params, workspace.tasks
        is_remote = bool(os.environ.get(ENDPOINT_VARIABLE))
        with st.spinner("Connecting to the model server …" if is_remote else "Loading the model …"):
            backend = current_backend(workspace)
    except BiloraError as error:
        draw_unavailable(tasks, _rate, error)
        return
    generation = {name: task.generation for name, task in params.tasks.items()}
    draw_page(backend, tasks, generation, _assert_runner(workspace), _rate)


def current_backend(workspace: Workspace) -> Backend:
    """Return the engine and its adapters; it is loaded once, and again if adapters or params change."""
    import streamlit as st

    return st.cache_resource(show_spinner=False)(_load_backend)(
        str(workspace.root), workspace.params.model_dump_json(), _fingerprint(workspace)
    )


def served_bundle(workspace: Workspace) -> str:
    """Return the bundle that the environment or the Space's release.json names; empty for the workspace's adapters."""
    from bilora.publishing.space_release import read_space_release

    return os.environ.get(BUNDLE_VARIABLE) or read_space_release(workspace.root).bundle


def _assert_runner(workspace: Workspace) -> AssertRunner:
    """Return the runner of answers with their asserts, one per process."""
    import streamlit as st

    return st.cache_resource(show_spinner=False)(_sandboxed_runner)(
        str(workspace.root), workspace.params.sandbox.model_dump_json()
    )


def _sandboxed_runner(root: str, sandbox_json: str) -> AssertRunner:
    from bilora.app.assert_runs import AssertRunner
    from bilora.workspace import Workspace

    sandbox = Workspace(Path(root)).sandbox()
    atexit.register(sandbox.close)  # Streamlit has no shutdown hook
    return AssertRunner(sandbox.run)


def _fingerprint(workspace: Workspace) -> str:
    """Return a text that changes with the adapters, so that the page loads the new ones."""
    bundle = served_bundle(workspace)
    return " ".join([workspace.adapters_version(bundle or None), os.environ.get(ENDPOINT_VARIABLE, ""), bundle])


def _load_backend(
    root: str, params_json: str, fingerprint: str
) -> Backend:  # Streamlit's cache ignores parameters with a leading underscore
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
        location="in this process",
    )


def remote_backend(url: str, params: Params) -> Backend:
    """Return a backend for a server with the chat completions API.

    Raises:
        BadData: `url` is not an HTTP URL.
        Unreachable: the server does not answer.
    """
    from bilora.api_keys import environment_key
    from bilora.app.conversation import Backend
    from bilora.errors import BadData, Unreachable
    from bilora.external_services import Endpoint
    from bilora.inference.endpoint.engine import EndpointEngine

    try:
        settings = Endpoint(name="endpoint", base_url=url, model="base")
    except ValueError:
        raise BadData(ENDPOINT_VARIABLE, "is not a URL that begins with http:// or https://.") from None
    settings = settings.model_copy(update={"name": settings.address})  # for error messages
    engine = EndpointEngine(settings, environment_key(ENDPOINT_KEY_VARIABLE), retries=1)  # the user is waiting
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
        location=f"at {settings.address}",
    )


def _rate(question: UserQuestion, answer: Answer, entered: RatingInput) -> str:
    """Store a rating durably; return the event id of the answer's valid rating."""
    from dataclasses import asdict
    from datetime import UTC, datetime
    from importlib.metadata import version

    import streamlit as st

    from bilora.feedback.events import new_event_id
    from bilora.feedback.outbox import Outbox
    from bilora.records import Rating
    from bilora.workspace import Workspace

    session = st.session_state.setdefault("session", secrets.token_hex(8))  # identifies this page visit, not its user
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
