"""The verb chat."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.cli.generate import (
    BundleOption,
    MaxTokensOption,
    ModelOption,
    SeedOption,
    TemperatureOption,
    TopPOption,
    cut_off,
    longest,
    penalty,
    printed,
)

if TYPE_CHECKING:
    from bilora.inference.engines import LocalEngine
    from bilora.params import Params
    from bilora.records import Message
    from bilora.requests import Request, SamplingParams

HELP = "/adapter NAME switches, /new forgets what was said, /quit leaves."


def chat(
    model: ModelOption = "base",
    bundle: BundleOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    seed: SeedOption = 0,
) -> None:
    """Talk with the base and every adapter; `/adapter NAME` switches within the conversation."""
    from bilora.cli.engines import adapters_to_serve, load_engine
    from bilora.cli.user_input import stdin_lines
    from bilora.requests import SamplingParams
    from bilora.tasks import load_task
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    folders = adapters_to_serve(workspace, bundle, required=model)
    engine = load_engine(workspace, folders, batch_size=1)
    sampling = SamplingParams(max_tokens=1, temperature=temperature, top_p=top_p, seed=seed)
    systems = {name: load_task(name).system for name in folders}
    talk = Conversation(engine, workspace.params, systems, sampling, model, max_tokens)
    print(f"chat: {', '.join(engine.models())}. {HELP}", file=sys.stderr)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (input() then edits lines and remembers them)
    for line in stdin_lines(lambda: f"{talk.model}> "):
        if (typed := line.strip()) == "/quit":
            break
        talk.hear(typed)


@dataclass
class Conversation:
    """What was said, and who answers next. A switch keeps what was said: only the system message is the new one's."""

    engine: LocalEngine
    params: Params
    systems: Mapping[str, str]
    sampling: SamplingParams
    model: str
    max_tokens: int | None
    said: list[Message] = field(default_factory=list)

    def hear(self, typed: str) -> None:
        """Do what a line asks for; one that cannot be answered is not the end of the conversation."""
        from bilora.cli.user_input import checked
        from bilora.errors import BiloraError

        try:
            self._do(checked(typed, "this line"))
        except BiloraError as error:
            self._note(str(error))

    def _do(self, typed: str) -> None:
        word, _, name = typed.partition(" ")
        if word == "/adapter":
            self._switch(name.strip())
        elif word == "/new":
            self.said.clear()
        elif word.startswith("/") and word[1:].isalpha():
            self._note(f"there is no {word}. {HELP}")
        elif typed:
            self._answer(typed)

    def _switch(self, name: str) -> None:
        known = self.engine.models()
        if name in known:
            self.model = name
        else:
            self._note(f"{f'there is no {name}; ' if name else ''}{self.model} answers, of {', '.join(known)}.")

    def _answer(self, typed: str) -> None:
        from bilora.records import Message
        from bilora.requests import Submission

        question = Message(role="user", content=typed)
        request = self._request(question)
        [job] = self.engine.prepare([Submission(self.model, request, lambda _: None)], streamed=False)
        shorter = "/new begins again" if self.said else "ask with fewer words"
        if job.prompt_tokens >= self.engine.context_length:
            self._note(
                f"{job.prompt_tokens} tokens are too many to answer within {self.engine.context_length}; {shorter}."
            )
            return
        try:
            made = printed(self.engine.stream(self.model, request))
        except KeyboardInterrupt:  # this answer was enough; what it said is not kept
            self._note("stopped; neither question nor answer is kept.")
            return
        self.said += [question, Message(role="assistant", content=made.text)]
        if advice := cut_off(made, self.engine.context_length, "/new begins again"):
            self._note(advice)

    def _request(self, question: Message) -> Request:
        from bilora.records import Message
        from bilora.requests import Request

        system = self.systems.get(self.model)
        before = (Message(role="system", content=system),) if system else ()
        limit = longest(self.params, self.model, self.max_tokens)
        turns = (*before, *self.said, question)
        sampling = replace(self.sampling, max_tokens=limit, frequency_penalty=penalty(self.params, self.model))
        return Request("chat", turns, sampling)

    def _note(self, text: str) -> None:
        print(f"chat: {text}", file=sys.stderr)
