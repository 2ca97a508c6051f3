"""The command serve."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import socket

    from bilora.serving.config import ServerConfig
    from bilora.workspace import Workspace

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class OtherServer(StrEnum):
    """A server for which --print writes launch files."""

    VLLM = "vllm"
    RAY = "ray"


BILORA_OPTIONS = frozenset(
    {
        "api_key_env",
        "batch",
        "queue",
        "threads",
        "max_tokens",
        "max_body",
        "allow_origin",
        "adapters_from",
        "drain_seconds",
    }
)
"""Options of BiLoRA's server, which --print does not use."""


def serve(
    context: typer.Context,
    bundle: Annotated[
        str | None, typer.Option(help="A published bundle: a folder, a URL, or a hub id@commit. Default: adapters/.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the API key that clients must send.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Maximum of requests in a batch.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Maximum of waiting requests; more get status 429.")] = 256,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the model. Default: the number of free cores, updated often.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Maximum of new tokens per request.")] = None,
    max_body: Annotated[int, typer.Option(min=1, help="Maximum size of a request in bytes.")] = 2**20,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Origin of web pages that may send requests; * for all. Repeatable.")
    ] = None,
    adapters_from: Annotated[
        str | None,
        typer.Option(help="Folder, or hub id@commit, from which clients may load adapters by their paths."),
    ] = None,
    drain_seconds: Annotated[
        int, typer.Option(min=0, max=86_400, help="Time for running requests to finish at shutdown.")
    ] = 60,
    print_: Annotated[
        OtherServer | None, typer.Option("--print", help="Write launch files for vLLM or Ray Serve, and exit.")
    ] = None,
    into: Annotated[Path, typer.Option(help="Folder for the files of --print.")] = Path("launch"),
    adapters_at: Annotated[
        str | None, typer.Option(help="With --print ray: URI of the adapters, readable by all machines.")
    ] = None,
) -> None:
    """Serve the base and the adapters over OpenAI's API, from one copy of the base."""
    from bilora.cli.ports import bind
    from bilora.workspace import Workspace

    _refuse_unused_options(context, print_)
    workspace = Workspace(Path())
    if print_ is not None:
        _write_launch_files(workspace, bundle, print_, into, host=host, port=port, adapters_at=adapters_at)
        return
    key = _key(api_key_env)
    if adapters_from is not None and key is None:
        raise typer.BadParameter("--adapters-from needs an API key; name its environment variable with --api-key-env.")
    sockets = bind(host, port)
    try:
        config = replace(
            _server_config(workspace, bundle, batch=batch, queue=queue, threads=threads),
            key=key,
            max_body=max_body,
            max_tokens=max_tokens,
            origins=tuple(allow_origin or ()),
            adapter_root=_adapter_root(adapters_from),
        )
        print(f"serve: {', '.join(config.engine.models())} at http://{host}:{port}/v1")
        if host not in LOOPBACK and config.key is None:
            print("serve: everyone can use this address; --api-key-env requires a key.", file=sys.stderr)
        _run(config, sockets, drain_seconds=drain_seconds)
    finally:
        for listener in sockets:
            listener.close()


def _refuse_unused_options(context: typer.Context, print_: OtherServer | None) -> None:
    """Refuse options that have no effect."""
    unused = {
        None: {"into", "adapters_at"},
        OtherServer.VLLM: {*BILORA_OPTIONS, "adapters_at"},
        OtherServer.RAY: {*BILORA_OPTIONS, "host", "port"},
    }[print_]
    typed = {name for name in unused if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"}
    if typed:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(typed))
        raise typer.BadParameter(f"{names}: no effect {f'with --print {print_}' if print_ else 'without --print'}.")


def _adapter_root(location: str | None) -> Path | None:
    from bilora.hub.snapshot import pinned_snapshot
    from bilora.storage import ADAPTER_FILES

    if location is None or Path(location).is_dir():
        return None if location is None else Path(location)
    return pinned_snapshot(location, patterns=[f"*{name}" for name in ADAPTER_FILES])


def _key(name: str | None) -> str | None:
    from bilora.api_keys import environment_key
    from bilora.errors import BadData

    if name is None:
        return None
    if (key := environment_key(name)) is None:
        raise BadData("--api-key-env", f"the environment variable {name} is empty or not set; set it to the key.")
    return key


def _server_config(
    workspace: Workspace, bundle: str | None, *, batch: int, queue: int, threads: int | None
) -> ServerConfig:
    import torch

    from bilora.cli.engines import adapters_to_serve, load_engine
    from bilora.errors import BadData
    from bilora.inference.free_cores import FreeCores
    from bilora.serving.config import ServerConfig
    from bilora.serving.reload import Reloader
    from bilora.serving.tokenization import tokenizer_info

    params, base = workspace.params, workspace.base()
    version, revision = workspace.adapters_version(bundle), base.identity
    folders = adapters_to_serve(workspace, bundle)

    def find_adapters() -> dict[str, Path]:
        if base.identity != revision:  # template and weights were loaded at the start
            raise BadData(base.id, "its files have changed; restart the server to load them.")
        return adapters_to_serve(workspace, bundle)

    engine = load_engine(workspace, folders, batch_size=batch, max_waiting=queue)
    engine.set_thread_callback(FreeCores(torch.get_num_threads()).count if threads is None else lambda: threads)
    reloader = Reloader(
        engine,
        version=version,
        read_version=lambda: workspace.adapters_version(bundle),
        find_adapters=find_adapters,
        unload=bundle is not None,
    )
    return ServerConfig(
        engine=engine,
        base_id=base.id,
        base_revision=revision,
        system_prompts={name: task.system for name, task in workspace.tasks.items()},
        frequency_penalties={name: task.generation.frequency_penalty for name, task in params.tasks.items()},
        tokenizer_info=tokenizer_info(base.tokenizer()),
        reload=reloader.reload,
    )


def _run(config: ServerConfig, sockets: list[socket.socket], *, drain_seconds: int) -> None:
    import contextlib
    import signal

    from bilora.serving.server import Server

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: uvicorn raises both again at shutdown
    with contextlib.suppress(KeyboardInterrupt):  # the normal end, after running requests have finished
        Server(config, drain_seconds=drain_seconds).run(sockets=sockets)


def _write_launch_files(
    workspace: Workspace,
    bundle: str | None,
    target: OtherServer,
    into: Path,
    *,
    host: str,
    port: int,
    adapters_at: str | None,
) -> None:
    from bilora.cli.engines import adapters_to_serve
    from bilora.serving.launch_files import LaunchSpec, ray_command, ray_files, vllm_command, vllm_files
    from bilora.storage import atomic

    folders = adapters_to_serve(workspace, bundle)
    spec = LaunchSpec(workspace.base(), {name: folder.resolve() for name, folder in folders.items()})
    if target is OtherServer.VLLM:
        files, line = vllm_files(spec, host=host, port=port), vllm_command(spec, host=host, port=port)
    elif adapters_at is None:
        raise typer.BadParameter("Ray loads adapters on any machine: give their URI with --adapters-at.")
    else:
        files, line = ray_files(spec, adapters_at=adapters_at), ray_command(into)
    into.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        with atomic(into / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        if name.endswith(".sh"):
            (into / name).chmod(0o755)
    print(line)
    print(f"serve: {', '.join(str(into / name) for name in files)} written.", file=sys.stderr)
