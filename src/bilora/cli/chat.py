"""The command chat."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.cli.generate import (
    SHORTER,
    BundleOption,
    MaxTokensOption,
    ModelOption,
    SeedOption,
    TemperatureOption,
    TopPOption,
    cut_off_note,
    frequency_penalty,
    print_stream,
    token_limit,
)

if TYPE_CHECKING:
    from bilora.inference.engines import LocalEngine
    from bilora.params import Params
    from bilora.records import Message
    from bilora.requests import Request, SamplingParams

HELP = "/adapter NAME switches the model, /new starts a new conversation, /quit ends the chat."
NEW = "start a new conversation with /new"


def chat(
    model: ModelOption = "base",
    bundle: BundleOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    seed: SeedOption = 0,
) -> None:
    """Chat with the base and the adapters; `/adapter NAME` switches the model within the conversation."""
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
    conversation = Conversation(engine, workspace.params, systems, sampling, model, max_tokens)
    print(f"chat: {', '.join(engine.models())}. {HELP}", file=sys.stderr)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (gives input() line editing and a history)
    for line in stdin_lines(lambda: f"{conversation.model}> "):
        if (typed := line.strip()) == "/quit":
            break
        conversation.handle_line(typed)


@dataclass
class Conversation:
    """A conversation and its current model. Switching the model changes only the system message."""

    engine: LocalEngine
    params: Params
    systems: Mapping[str, str]
    sampling: SamplingParams
    model: str
    max_tokens: int | None
    messages: list[Message] = field(default_factory=list)

    def handle_line(self, typed: str) -> None:
        """Run a command or answer a question; an error does not end the conversation."""
        from bilora.cli.user_input import check_text
        from bilora.errors import BiloraError

        try:
            self._run(check_text(typed, "this line"))
        except BiloraError as error:
            self._note(str(error))

    def _run(self, typed: str) -> None:
        command, _, name = typed.partition(" ")
        if command == "/adapter":
            self._switch(name.strip())
        elif command == "/new":
            self.messages.clear()
        elif command.startswith("/") and command[1:].isalpha():
            self._note(f"there is no {command}. {HELP}")
        elif typed:
            self._answer(typed)

    def _switch(self, name: str) -> None:
        models = self.engine.models()
        if name in models:
            self.model = name
        else:
            unknown = f"there is no {name}; " if name else ""
            self._note(f"{unknown}the model is {self.model}, of {', '.join(models)}.")

    def _answer(self, typed: str) -> None:
        from bilora.records import Message
        from bilora.requests import Submission

        question = Message(role="user", content=typed)
        request = self._request(question)
        [job] = self.engine.prepare([Submission(self.model, request, lambda _: None)], streamed=False)
        context, advice = self.engine.context_length, NEW if self.messages else SHORTER
        if job.prompt_tokens >= context:
            self._note(f"{job.prompt_tokens} tokens are too many for the context of {context} tokens; {advice}.")
            return
        try:
            completion = print_stream(self.engine.stream(self.model, request))
        except KeyboardInterrupt:
            self._note("stopped; neither question nor answer is in the conversation.")
            return
        self.messages += [question, Message(role="assistant", content=completion.text)]
        if note := cut_off_note(completion, context, NEW):
            self._note(note)

    def _request(self, question: Message) -> Request:
        from bilora.records import Message
        from bilora.requests import Request

        system = self.systems.get(self.model)
        system_messages = (Message(role="system", content=system),) if system else ()
        sampling = replace(
            self.sampling,
            max_tokens=token_limit(self.params, self.model, self.max_tokens),
            frequency_penalty=frequency_penalty(self.params, self.model),
        )
        return Request("chat", (*system_messages, *self.messages, question), sampling)

    def _note(self, text: str) -> None:
        print(f"chat: {text}", file=sys.stderr)
