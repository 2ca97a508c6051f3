"""From a chat to token ids: only the chat template writes control tokens, a message is always text.

Training, evaluation and serving all encode here, so they cannot disagree. A message that holds `<|end|>` holds seven
characters, and ends nothing. A chat whose messages hold no such text has the ids that the tokenizer gives to the
rendered chat.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import islice, takewhile

from bilora.bases.control_tokens import ControlTokens
from bilora.bases.tokenizer import Tokenizer
from bilora.errors import BadData, PreflightFailed
from bilora.records import Message

TemplateMessage = Mapping[str, str]
"""A message as chat templates read it: its `role` and its `content`."""

PRIVATE_USE = range(0xF0000, 0xF2000)
"""Characters that have no meaning and no case and are no white space, so templates leave them as they are."""
_REASON_CHARS = 200


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of a chat up to where the assistant speaks.

    Raises:
        BadData: the chat template refuses this chat or fails on it.
    """
    return _encoder(tokenizer).encode(_turns(messages), answered=False)


def encode_answer(
    tokenizer: Tokenizer, messages: Sequence[Message], answer: str, stops: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt and those of its answer, which end with the token that ends the assistant's turn.

    Raises:
        BadData: the chat template refuses this chat or fails on it.
        PreflightFailed: the chat template does not extend the prompt, or closes a turn without a stop token.
    """
    prompt = encode_prompt(tokenizer, messages)
    whole = encode_chat(tokenizer, [*_turns(messages), {"role": "assistant", "content": answer}])
    if whole[: len(prompt)] != prompt:
        raise PreflightFailed(
            "The chat template renders the prompt differently once an answer follows; choose another base."
        )
    learnt = whole[len(prompt) :]
    end = next((place for place, token in enumerate(learnt) if token in stops), None)
    if end is None:
        raise PreflightFailed("The chat template ends no answer with a stop token; the adapter would never stop.")
    return prompt, learnt[: end + 1]


def encode_chat(tokenizer: Tokenizer, turns: Sequence[TemplateMessage]) -> list[int]:
    """Return the token ids of a whole chat, with what the template writes after the last answer.

    Raises:
        BadData: the chat template refuses this chat or fails on it.
    """
    return _encoder(tokenizer).encode(turns, answered=True)


def template_messages(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the chat that the chat template renders: where it has no system role, that text begins the question.

    Raises:
        BadData: the template has no system role and no question follows the system message.
    """
    turns = _encoder(tokenizer).with_system_role(_turns(messages))
    return tuple(Message.model_validate(turn) for turn in turns)


def check_template(tokenizer: Tokenizer) -> None:
    """Try the chat template on a question.

    Raises:
        BadData: it renders none, neither with a system message before it nor without.
    """
    _encoder(tokenizer).check()


def template_remarks(tokenizer: Tokenizer) -> list[str]:
    """Return in sentences what a user must know of this chat template; of most templates there is nothing."""
    return _encoder(tokenizer).remarks()


def _turns(messages: Iterable[Message]) -> list[TemplateMessage]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _encoder(tokenizer: Tokenizer) -> _Encoder:
    return _cached_encoder(tokenizer, str(tokenizer.chat_template), len(tokenizer))


@lru_cache(maxsize=4)
def _cached_encoder(tokenizer: Tokenizer, template: str, tokens: int) -> _Encoder:
    """Make one encoder per tokenizer, and a new one when its template or its tokens have changed."""
    return _Encoder(tokenizer)


class _Encoder:
    """Encodes the chats of one tokenizer under one chat template."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.control = ControlTokens(tokenizer)
        self._tokenizer = tokenizer
        self._base = str(tokenizer.name_or_path or "the base")

    def encode(self, turns: Sequence[TemplateMessage], *, answered: bool) -> list[int]:
        """Return the token ids of a chat.

        1) Render it. 2) Find the control tokens that the template wrote. 3) If there are no others, the tokenizer
        encodes the rendered chat as it is; else the renamed one does, which knows only those of the template.
        """
        turns = self.with_system_role(turns)
        rendered, named = self._render_both(turns, answered=answered)
        if named == self.control.named(rendered):
            ids: list[int] = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
            if self.control.explain(ids, rendered):  # a normalizer may have made one of text
                return ids
        ids = self.control.renamed.encode(named, add_special_tokens=False).ids
        return ids

    def check(self) -> None:
        """Raise BadData unless a question can be rendered, alone or after a system message."""
        question: list[TemplateMessage] = [{"role": "user", "content": "?"}]
        try:
            self._render(question, answered=False)
        except BadData as fault:
            if not self._renders([{"role": "system", "content": "?"}, *question]):
                raise fault from None

    def remarks(self) -> list[str]:
        """Return what is special about the template."""
        remarks = []
        if not self._has_system_role:
            remarks.append(
                f"The chat template of {self._base} has no system role: "
                "the system text is put before the first question."
            )
        if self._turns_are_text():
            remarks.append(
                f"The chat template of {self._base} marks turns by plain text, which a message can imitate; "
                "do not let strangers' text decide anything."
            )
        return remarks

    def _turns_are_text(self) -> bool:
        """Whether there is no control token between two messages."""
        roles = ("user", "assistant", "user")
        chat = [{"role": role, "content": f"bilora {number}"} for number, role in enumerate(roles)]
        try:
            rendered = self._render(chat, answered=False)
        except BadData:
            return False
        between = re.split("|".join(turn["content"] for turn in chat), rendered)[1:-1]
        return not all(self.control.found(piece) for piece in between)

    @cached_property
    def _has_system_role(self) -> bool:
        """Whether the template takes a system message and its text matters; True if it takes no question either."""
        question = {"role": "user", "content": "?"}
        chats = [[{"role": "system", "content": text}, question] for text in ("Be brief.", "Explain it.")]
        try:
            one, other = (self._render(chat, answered=False) for chat in chats)
        except BadData:
            return not self._renders([question])
        return one != other

    def with_system_role(self, turns: Sequence[TemplateMessage]) -> Sequence[TemplateMessage]:
        """Put the system text before the first question, if the template has no system role.

        Raises:
            BadData: no question follows it.
        """
        systems = [turn["content"] for turn in takewhile(lambda turn: turn["role"] == "system", turns)]
        rest = turns[len(systems) :]
        if self._has_system_role or all(turn["role"] != "system" for turn in turns):
            return turns
        if not systems or not rest or rest[0]["role"] != "user" or any(turn["role"] == "system" for turn in rest):
            raise BadData(
                self._base,
                "its chat template has no system role; give the system message first, and a question after it.",
            )
        question = "\n\n".join(text for text in (*systems, rest[0]["content"]) if text)
        return [{"role": "user", "content": question}, *rest[1:]]

    def _render_both(self, turns: Sequence[TemplateMessage], *, answered: bool) -> tuple[str, str]:
        """Return the rendered chat, and the same with the template's own control tokens by their names.

        1) Render it again with stand-ins for the characters in messages that could write a control token: what is
        found then is the template's. 2) A template that looks for such characters in a message renders another chat
        now. The first one is right, and safe if it has just the template's control tokens; else take the second.
        """
        rendered = self._render(turns, answered=answered)
        said: set[str] = set().union(*(turn["content"] for turn in turns))
        used = "".join(sorted(self.control.marks & said))
        if not used:
            return rendered, self.control.named(rendered)
        stand_ins = "".join(islice((char for char in map(chr, PRIVATE_USE) if char not in said), len(used)))
        if len(stand_ins) < len(used):
            raise BadData("messages", "they hold every private character of Unicode; leave some out.")
        disguise, undo = str.maketrans(used, stand_ins), str.maketrans(stand_ins, used)
        disguised = self._render(
            [{**turn, "content": turn["content"].translate(disguise)} for turn in turns], answered=answered
        )
        same = disguised.translate(undo) == rendered
        if not same and self.control.found(rendered) == self.control.found(disguised):
            return rendered, self.control.named(rendered)
        return disguised.translate(undo), self.control.named(disguised).translate(undo)

    def _renders(self, turns: Sequence[TemplateMessage]) -> bool:
        try:
            self._render(turns, answered=False)
        except BadData:
            return False
        return True

    def _render(self, turns: Sequence[TemplateMessage], *, answered: bool) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=not answered)
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise BadData(self._base, _why(error)) from None


def _why(error: Exception) -> str:
    """Say in a sentence what a chat template has raised."""
    from jinja2.exceptions import TemplateError, TemplateSyntaxError

    reason = " ".join(str(error).split())[:_REASON_CHARS].rstrip(".") or type(error).__name__
    if isinstance(error, TemplateSyntaxError):
        return f"its chat template is broken in line {error.lineno} ({reason}); mend it or choose another base."
    if type(error) is TemplateError:  # what `raise_exception` raises
        return f"its chat template refuses this chat ({reason})."
    return f"its chat template fails on this chat ({reason})."
