"""The verb generate."""

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


def finite(value: float) -> float:
    """Refuse `inf` and `nan`, which Typer takes for numbers within any bounds."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number.")
    return value


ModelOption = Annotated[str, typer.Option("--model", "-m", help="Who answers: base or a task's adapter.")]
BundleOption = Annotated[
    str | None, typer.Option(help="A published bundle: a folder, a URL, or a hub id@commit. Default: adapters/.")
]
MaxTokensOption = Annotated[int | None, typer.Option(min=1, help="Longest answer in tokens. Default: the task's own.")]
TemperatureOption = Annotated[float, typer.Option(min=0.0, callback=finite, help="0 takes the likeliest token.")]
TopPOption = Annotated[
    float, typer.Option(min=0.0, max=1.0, callback=finite, help="Draw from the likeliest tokens of this total.")
]
SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the draws, where the temperature is above 0.")]


def generate(
    prompt: Annotated[str | None, typer.Argument(help="The question; read from standard input if absent.")] = None,
    model: ModelOption = "base",
    bundle: BundleOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    seed: SeedOption = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text; may be repeated.")] = None,
) -> None:
    """Answer one question and print the answer as it is made."""
    from bilora.cli.engines import adapters_to_serve, load_engine
    from bilora.cli.user_input import checked, read_stdin
    from bilora.errors import BadData
    from bilora.inference.engine import BASE_SYSTEM
    from bilora.records import Message
    from bilora.requests import Request, SamplingParams
    from bilora.tasks import load_task
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params = workspace.params
    folders = adapters_to_serve(workspace, bundle, required=model)
    typed = read_stdin() if prompt is None else checked(prompt, "prompt")
    if not typed.strip():
        raise BadData("prompt", "it is empty; give it as an argument or on standard input.")
    if model == BASE_SYSTEM:
        messages: tuple[Message, ...] = (Message(role="user", content=typed.strip()),)
    else:
        task = load_task(model)
        messages = task.messages(task.make_prompt(typed))
    engine = load_engine(workspace, {name: folder for name, folder in folders.items() if name == model}, batch_size=1)
    sampling = SamplingParams(
        max_tokens=longest(params, model, max_tokens),
        temperature=temperature,
        seed=seed,
        top_p=top_p,
        frequency_penalty=penalty(params, model),
        stop=tuple(stop or ()),
    )
    request = Request("generate", messages, sampling)
    made = printed(engine.stream(model, request))
    if advice := cut_off(made, engine.context_length, "ask with fewer words"):
        print(f"generate: {advice}", file=sys.stderr)


def cut_off(made: Completion, context: int, shorter: str) -> str:
    """Say why an answer was cut off and what helps, which is `shorter` where the context is full; empty if it ended."""
    if made.finish != "length":
        return ""
    if (
        made.prompt_tokens is not None
        and made.output_tokens is not None
        and (made.prompt_tokens + made.output_tokens >= context)
    ):
        return f"cut off after {made.output_tokens} tokens, for the context of {context} tokens is full; {shorter}."
    return f"cut off after {made.output_tokens} tokens; --max-tokens allows more."


def longest(params: Params, model: str, wanted: int | None) -> int:
    """Return how long an answer may become: as wanted, else as the task's own are, the base's as the longest of all."""
    own = {name: task.generation.max_new_tokens for name, task in params.tasks.items()}
    return wanted or own.get(model) or max(own.values())


def penalty(params: Params, model: str) -> float:
    """Return what keeps an adapter's answers from repeating themselves; the base's are left as they come."""
    return params.tasks[model].generation.frequency_penalty if model in params.tasks else 0.0


def printed(stream: Generator[str, None, Completion]) -> Completion:
    """Print an answer as it comes; closing the stream, as Ctrl-C does, ends the work."""
    try:
        while True:
            print(next(stream), end="", flush=True)
    except StopIteration as end:
        made: Completion = end.value
        return made
    finally:
        stream.close()
        print(flush=True)
