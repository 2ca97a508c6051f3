"""Encode a chat into token ids so that only the chat template writes control tokens and messages are always text.

Training, evaluation and serving all use these functions. `<|end|>` in a message is encoded as seven characters and
ends nothing. A chat without control tokens in its messages has the tokenizer's ids of the rendered chat.
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
"""A message as chat templates read it, with the keys `role` and `content`."""

_PRIVATE_USE = range(0xF0000, 0xF2000)
"""Characters without meaning or case that are not white space, so templates do not change them."""
_REASON_CHARS = 200


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of a chat with its generation prompt.

    Raises:
        BadData: the chat template rejects this chat or fails on it.
    """
    return _encoder(tokenizer).encode(_turns(messages), answered=False)


def encode_answer(
    tokenizer: Tokenizer, messages: Sequence[Message], answer: str, stops: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the token ids of a prompt and of its answer, which ends with the first stop token.

    Raises:
        BadData: the chat template rejects this chat or fails on it.
        PreflightFailed: the chat template changes the prompt before an answer, or ends an answer without a stop token.
    """
    prompt = encode_prompt(tokenizer, messages)
    whole = encode_chat(tokenizer, [*_turns(messages), {"role": "assistant", "content": answer}])
    if whole[: len(prompt)] != prompt:
        raise PreflightFailed(
            "The chat template renders the prompt differently if an answer follows; choose another base."
        )
    completion = whole[len(prompt) :]
    end = next((index for index, token in enumerate(completion) if token in stops), None)
    if end is None:
        raise PreflightFailed(
            "The chat template ends no answer with a stop token, so the adapter would never stop; choose another base."
        )
    return prompt, completion[: end + 1]


def encode_chat(tokenizer: Tokenizer, turns: Sequence[TemplateMessage]) -> list[int]:
    """Return the token ids of a chat that ends with an answer.

    Raises:
        BadData: the chat template rejects this chat or fails on it.
    """
    return _encoder(tokenizer).encode(turns, answered=True)


def template_messages(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages that are rendered; without a system role, the system text begins the first question.

    Raises:
        BadData: the template has no system role and no question follows the system message.
    """
    turns = _encoder(tokenizer).with_system_role(_turns(messages))
    return tuple(Message.model_validate(turn) for turn in turns)


def check_template(tokenizer: Tokenizer) -> None:
    """Check that the chat template renders a question.

    Raises:
        BadData: it renders none, with or without a system message.
    """
    _encoder(tokenizer).check()


def template_remarks(tokenizer: Tokenizer) -> list[str]:
    """Return sentences on the limitations of the chat template; most templates have none."""
    return _encoder(tokenizer).remarks()


def _turns(messages: Iterable[Message]) -> list[TemplateMessage]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _encoder(tokenizer: Tokenizer) -> _Encoder:
    return _cached_encoder(tokenizer, str(tokenizer.chat_template), len(tokenizer))


@lru_cache(maxsize=4)
def _cached_encoder(tokenizer: Tokenizer, template: str, tokens: int) -> _Encoder:
    """Return a cached encoder; the arguments `template` and `tokens` make a new one when they change."""
    return _Encoder(tokenizer)


class _Encoder:
    """Encodes chats with one tokenizer and its chat template."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.control = ControlTokens(tokenizer)
        self._tokenizer = tokenizer
        self._base = str(tokenizer.name_or_path or "the base")

    def encode(self, turns: Sequence[TemplateMessage], *, answered: bool) -> list[int]:
        """Return the token ids of a chat.

        1) Render it, and again with placeholders for the template's control tokens. 2) If no message spells a control
        token, encode the rendered chat. 3) Else encode the one with placeholders, in which messages are only text.
        """
        turns = self.with_system_role(turns)
        rendered, with_placeholders = self._render_both(turns, answered=answered)
        if with_placeholders == self.control.with_placeholders(rendered):
            ids: list[int] = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
            if self.control.are_spelled(ids, rendered):  # a normalizer may turn text into a control token
                return ids
        ids = self.control.placeholder_tokenizer.encode(with_placeholders, add_special_tokens=False).ids
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
        """Return sentences on the limitations of the template."""
        remarks = []
        if not self._has_system_role:
            remarks.append(
                f"The chat template of {self._base} has no system role: "
                "the system text is put before the first question."
            )
        if self._turns_are_text():
            remarks.append(
                f"The chat template of {self._base} marks turns by ordinary text, which a message can imitate; "
                "do not trust answers to untrusted prompts."
            )
        return remarks

    def _turns_are_text(self) -> bool:
        """Return whether two messages have no control token between them."""
        roles = ("user", "assistant", "user")
        chat = [{"role": role, "content": f"bilora {number}"} for number, role in enumerate(roles)]
        try:
            rendered = self._render(chat, answered=False)
        except BadData:
            return False
        between = re.split("|".join(turn["content"] for turn in chat), rendered)[1:-1]
        return not all(self.control.find(piece) for piece in between)

    @cached_property
    def _has_system_role(self) -> bool:
        """Whether the template renders the text of a system message; True if it rejects even a question without one."""
        question = {"role": "user", "content": "?"}
        chats = [[{"role": "system", "content": text}, question] for text in ("Be brief.", "Explain it.")]
        try:
            brief, explain = (self._render(chat, answered=False) for chat in chats)
        except BadData:
            return not self._renders([question])
        return brief != explain

    def with_system_role(self, turns: Sequence[TemplateMessage]) -> Sequence[TemplateMessage]:
        """Put the system text before the first question if the template has no system role.

        Raises:
            BadData: no question follows the system message.
        """
        systems = [turn["content"] for turn in takewhile(lambda turn: turn["role"] == "system", turns)]
        others = turns[len(systems) :]
        if self._has_system_role or all(turn["role"] != "system" for turn in turns):
            return turns
        if not systems or not others or others[0]["role"] != "user" or any(t["role"] == "system" for t in others):
            raise BadData(
                self._base,
                "its chat template has no system role; give the system message first, and a question after it.",
            )
        question = "\n\n".join(text for text in (*systems, others[0]["content"]) if text)
        return [{"role": "user", "content": question}, *others[1:]]

    def _render_both(self, turns: Sequence[TemplateMessage], *, answered: bool) -> tuple[str, str]:
        """Return the rendered chat, and the same with placeholders for the template's control tokens.

        1) Render the chat. 2) Render it again with private characters for those in messages that could spell control
        tokens: the control tokens in this text come from the template. 3) A template that searches for such characters
        renders another chat then. Return the first one if it has the same control tokens; else it is unsafe, so return
        the second one.
        """
        rendered = self._render(turns, answered=answered)
        characters: set[str] = set().union(*(turn["content"] for turn in turns))
        unsafe = "".join(sorted(self.control.required_characters & characters))
        if not unsafe:
            return rendered, self.control.with_placeholders(rendered)
        private = "".join(islice((char for char in map(chr, _PRIVATE_USE) if char not in characters), len(unsafe)))
        if len(private) < len(unsafe):
            raise BadData("messages", "they contain every private character of Unicode; remove some.")
        escape, unescape = str.maketrans(unsafe, private), str.maketrans(private, unsafe)
        escaped = self._render(
            [{**turn, "content": turn["content"].translate(escape)} for turn in turns], answered=answered
        )
        same = escaped.translate(unescape) == rendered
        if not same and self.control.find(rendered) == self.control.find(escaped):
            return rendered, self.control.with_placeholders(rendered)
        return escaped.translate(unescape), self.control.with_placeholders(escaped).translate(unescape)

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
        except Exception as error:  # a template is a program that may raise anything
            raise BadData(self._base, _describe_error(error)) from None


def _describe_error(error: Exception) -> str:
    """Return a sentence on an exception of a chat template."""
    from jinja2.exceptions import TemplateError, TemplateSyntaxError

    reason = " ".join(str(error).split())[:_REASON_CHARS].rstrip(".") or type(error).__name__
    if isinstance(error, TemplateSyntaxError):
        return f"its chat template has a syntax error in line {error.lineno} ({reason}); fix it or choose another base."
    if type(error) is TemplateError:  # raised by `raise_exception`
        return f"its chat template rejects this chat ({reason})."
    return f"its chat template fails on this chat ({reason})."
