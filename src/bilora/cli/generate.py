"""The command generate, and the sampling options that chat shares."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Generator

    from bilora.params import Params
    from bilora.records import Completion, Message


def require_finite(value: float) -> float:
    """Refuse `inf` and `nan`, which pass Typer's bounds."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


SHORTER = "shorten the question"
"""Advice if the context is full."""

ModelOption = Annotated[str, typer.Option("--model", "-m", help="Model: base, or a task's name for its adapter.")]
BundleOption = Annotated[
    str | None, typer.Option(help="A published bundle: a folder, a URL, or a hub id@commit. Default: adapters/.")
]
MaxTokensOption = Annotated[int | None, typer.Option(min=1, help="Maximum of new tokens. Default: the task's limit.")]
TemperatureOption = Annotated[float, typer.Option(min=0.0, callback=require_finite, help="0 is greedy decoding.")]
TopPOption = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, callback=require_finite, help="Sample from the most likely tokens of this total probability."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the sampling.")]


def generate(
    prompt: Annotated[str | None, typer.Argument(help="The question; read from standard input by default.")] = None,
    model: ModelOption = "base",
    bundle: BundleOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    seed: SeedOption = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text; may be repeated.")] = None,
) -> None:
    """Answer one question and stream the answer."""
    from bilora.cli.engines import adapters_to_serve, load_engine
    from bilora.cli.user_input import check_text, read_stdin
    from bilora.errors import BadData
    from bilora.inference.engine import BASE_SYSTEM
    from bilora.records import Message
    from bilora.requests import Request, SamplingParams
    from bilora.tasks import load_task
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params = workspace.params
    folders = adapters_to_serve(workspace, bundle, required=model)
    typed = read_stdin() if prompt is None else check_text(prompt, "prompt")
    if not typed.strip():
        raise BadData("prompt", "it is empty; pass it as an argument or on standard input.")
    if model == BASE_SYSTEM:
        messages: tuple[Message, ...] = (Message(role="user", content=typed.strip()),)
    else:
        task = load_task(model)
        messages = task.messages(task.make_prompt(typed))
    engine = load_engine(workspace, {name: folder for name, folder in folders.items() if name == model}, batch_size=1)
    sampling = SamplingParams(
        max_tokens=token_limit(params, model, max_tokens),
        temperature=temperature,
        seed=seed,
        top_p=top_p,
        frequency_penalty=frequency_penalty(params, model),
        stop=tuple(stop or ()),
    )
    request = Request("generate", messages, sampling)
    completion = print_stream(engine.stream(model, request))
    if note := cut_off_note(completion, engine.context_length, SHORTER):
        print(f"generate: {note}", file=sys.stderr)


def cut_off_note(completion: Completion, context: int, advice: str) -> str:
    """Return why a completion was cut off, with `advice` if the context is full; empty if it is complete."""
    prompt, tokens = completion.prompt_tokens, completion.output_tokens
    if completion.finish != "length":
        return ""
    if prompt is not None and tokens is not None and prompt + tokens >= context:
        return f"cut off after {tokens} tokens: the context of {context} tokens is full; {advice}."
    return f"cut off after {tokens} tokens; --max-tokens allows more."


def token_limit(params: Params, model: str, max_tokens: int | None) -> int:
    """Return the maximum of new tokens: `max_tokens`, else the task's limit; for the base the largest of all tasks."""
    limits = {name: task.generation.max_new_tokens for name, task in params.tasks.items()}
    return max_tokens or limits.get(model) or max(limits.values())


def frequency_penalty(params: Params, model: str) -> float:
    """Return the frequency penalty of a task's adapter; 0 for the base."""
    return params.tasks[model].generation.frequency_penalty if model in params.tasks else 0.0


def print_stream(stream: Generator[str, None, Completion]) -> Completion:
    """Print a completion while it is streamed; on Ctrl-C the stream is closed, which stops the engine."""
    try:
        while True:
            print(next(stream), end="", flush=True)
    except StopIteration as end:
        completion: Completion = end.value
        return completion
    finally:
        stream.close()
        print(flush=True)
