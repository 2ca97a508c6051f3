"""Split a model's reply into reasoning, prose and code blocks."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from bilora.extraction.python import LITERAL, parse
from bilora.python_code.source import normalized

_THOUGHTS = "think|thinking|thoughts?|reason|reasoning|reflection|scratchpad|analysis|inner_monologue|seed:think"
_OPENED = re.compile(
    rf"<(?:{_THOUGHTS})\b[^<>\n]{{0,80}}>|\[THINK\]|◁think▷|<\|(?:{_THOUGHTS}|begin_of_thought|START_THINKING)\|>"
    r'|<details\b[^<>\n]{0,80}type="reasoning"[^<>\n]{0,80}>',
    re.I,
)
_CLOSED = re.compile(
    rf"</(?:{_THOUGHTS})\s*>|\[/THINK\]|◁/think▷|<\|(?:/(?:{_THOUGHTS})|end_of_thought|END_THINKING)\|>|</details\s*>",
    re.I,
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<\n]{0,80}<\|message\|>")
"""The mark of a channel in a reply with several; only the channel "final" is the answer."""

SPECIAL = (
    rf"<[|\uff5c](?!(?:begin_of_thought|end_of_thought|(?:START|END)_THINKING|/?(?:{_THOUGHTS}))\|)"
    r"[^|\uff5c<>\n]{1,40}[|\uff5c]>|</?s>|<[eb]os>|<pad>|<EOT>"
    r"|<(?:start|end)_of_turn>|\[/?INST\]"
)
_LEADING = re.compile(rf"\s*(?:(?:{SPECIAL})(?:assistant\b|model\b)?)+", re.I)
_ENDED = re.compile(rf"(?:{SPECIAL})(?=\s*(?:\n|\Z)|{SPECIAL})", re.I)
"""A special token, written as text, that ends a turn: only at a line's end, because prose may mention one."""

_FENCE = re.compile(r"^([ \t]*(?:>[ \t]?)*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?)(`{3,}|~{3,})([^\n]*)$", re.M)
_LANGUAGE = re.compile(r"[ \t{.]*([\w+#-]+)")
PYTHON = re.compile(r"(?:i?python|py|pycon)(?:[\d.]*|-repl|-console)", re.I)
_MARKDOWN = {"markdown", "md", "mdx", "rst"}
_LANGUAGES = re.compile(
    "markdown|md|mdx|rst|bash|sh|shell|zsh|console|terminal|cmd|powershell|text|txt|plain|plaintext|output|stdout|log"
    "|none|json|jsonl|yaml|yml|toml|ini|xml|html|css|csv|sql|diff|patch|c|cpp|c\\+\\+|c#|csharp|java|kotlin|scala|go|rust"
    "|ruby|perl|php|r|julia|swift|haskell|lua|javascript|js|jsx|typescript|ts|tsx|latex|tex|math|mermaid|dockerfile"
    "|makefile|doctest",
    re.I,
)
_MAX_LOOKAHEAD = 16
"""Maximum number of fences checked as a block's end, which keeps the search linear."""


@dataclass(frozen=True)
class Block:
    """One piece of a reply. `language` is None for prose, and "" for a code block without a language."""

    text: str
    language: str | None = None

    @property
    def is_python(self) -> bool:
        """Whether the block's language is Python or not given."""
        return not self.language or PYTHON.fullmatch(self.language) is not None

    @property
    def is_text(self) -> bool:
        """Whether the block's language is plain text or not given."""
        return not self.language or self.language in ("text", "txt", "plaintext", "plain", "docstring", "output")


def clean(text: str) -> str:
    """Return a reply without reasoning and special tokens, with \\n as line end."""
    return _without_special_tokens(_without_reasoning(_final_channel(normalized(text))))


def _final_channel(text: str) -> str:
    channels = list(_CHANNEL.finditer(text))
    if not channels or text[: channels[0].start()].strip() not in ("", "<|start|>assistant"):
        return text
    final = [channel for channel in channels if channel[1] == "final"]
    return text[final[-1].end() :] if final else ""


def _without_special_tokens(text: str) -> str:
    leading = _LEADING.match(text)
    body = text[leading.end() :] if leading else text
    fences = _fenced_ranges(body)
    for token in _ENDED.finditer(body):
        if not any(start <= token.start() < end for start, end in fences):
            return body[: token.start()]
    return body


def _fenced_ranges(text: str) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    for mark in _FENCE.finditer(text):
        if opened is None:
            opened = mark if _opens(mark) else None
        elif _closes(mark, opened):
            ranges.append((opened.start(), mark.start()))
            opened = None
    return ranges


def _without_reasoning(text: str) -> str:
    marks = sorted(
        (mark for pattern in (_OPENED, _CLOSED, _FENCE) for mark in pattern.finditer(text)),
        key=lambda mark: mark.start(),
    )
    last_closed = max((mark.start() for mark in marks if mark.re is _CLOSED), default=-1)
    visible: list[str] = []
    position, thinking = 0, False
    fence: re.Match[str] | None = None
    for mark in marks:
        if mark.start() < position or _is_quoted(mark):
            continue
        if mark.re is _CLOSED:
            if thinking:
                position, thinking = mark.end(), False
            elif mark[0][:9].lower() != "</details" and (fence is None or _is_whole_line(mark)):
                visible, position, fence = [], mark.end(), None  # the prompt contained the opening tag
        elif thinking:
            continue
        elif mark.re is _FENCE:
            fence = (mark if _opens(mark) else None) if fence is None else None if _closes(mark, fence) else fence
        elif fence is None and (_starts_line(mark) or mark.start() < last_closed):
            visible.append(text[position : mark.start()])
            thinking, position = True, mark.end()
    return "".join(visible if thinking else (*visible, text[position:]))


def _starts_line(mark: re.Match[str]) -> bool:
    return not mark.string[mark.string.rfind("\n", 0, mark.start()) + 1 : mark.start()].strip()


def _is_whole_line(mark: re.Match[str]) -> bool:
    end = mark.string.find("\n", mark.end())
    return _starts_line(mark) and not mark.string[mark.end() : end if end >= 0 else None].strip()


def _is_quoted(mark: re.Match[str]) -> bool:
    before, after = mark.string[max(0, mark.start() - 1) : mark.start()], mark.string[mark.end() : mark.end() + 1]
    if mark.re is _FENCE:
        return False
    return before in ("'", '"', "`") and (mark.re is _OPENED or before == after)


def _opens(mark: re.Match[str]) -> bool:
    return not (mark[2][0] == "`" and "`" in mark[3])


def _closes(mark: re.Match[str], opened: re.Match[str]) -> bool:
    """Return whether a fence closes a block; some models put their next sentence on its line."""
    if mark[2][0] != opened[2][0] or len(mark[2]) < len(opened[2]):
        return False
    return not mark[3].strip() or (_opens(mark) and not _names_language(mark))


def _names_language(mark: re.Match[str]) -> bool:
    word = _LANGUAGE.match(mark[3])
    return word is not None and ((_LANGUAGES.fullmatch(word[1]) or PYTHON.fullmatch(word[1])) is not None)


def split_blocks(text: str) -> list[Block]:
    """Split an answer into prose and Markdown code blocks, in order.

    A fence counts only at the start of a line, after indentation, a list's mark or a quotation's.
    Inside a block, a fence within one of the code's own strings does not end it.
    """
    marks = list(_FENCE.finditer(text))
    blocks: list[Block] = []
    position = number = 0
    while number < len(marks):
        mark = marks[number]
        if not _opens(mark):
            number += 1
            continue
        blocks.append(Block(text[position : mark.start()]))
        language = _LANGUAGE.match(mark[3])
        position = min(mark.end() + 1, len(text))
        if language and language[1].lower() in _MARKDOWN:
            number += 1  # the whole reply is one Markdown block: split its inner blocks
            continue
        closing = _closing(text, marks, number, position)
        if closing is None:
            end, following, number = len(text), len(text), len(marks)
        elif _closes(marks[closing], mark):
            end, following, number = marks[closing].start(), marks[closing].end(), closing + 1
            following -= len(marks[closing][3])
        else:  # the next block opens before this one was closed
            end = following = marks[closing].start()
            number = closing
            if not mark[3].strip():  # this mark closed a block that the prompt opened
                blocks.append(Block(text[position:end]))
                position = following
                continue
        blocks.append(Block(_first_line(mark) + text[position:end], language[1].lower() if language else ""))
        position = following
    blocks.append(Block(text[position:]))
    return [block for block in blocks if block.language is not None or block.text.strip()]


def _first_line(mark: re.Match[str]) -> str:
    """Return code on the line of the opening fence, after the language."""
    code = re.search(r"\s((?:async\s+def|def|class|import|from|@)[ \t\w].*)$", mark[3])
    return f"{code[1]}\n" if code else ""


def _closing(text: str, marks: list[re.Match[str]], opened: int, start: int) -> int | None:
    """Return the index of the mark that ends a block: one that closes it or opens the next."""
    near = range(opened + 1, min(opened + 1 + _MAX_LOOKAHEAD, len(marks)))
    ends = (number for number in near if _ends(marks[number], marks[opened]))
    first = next(ends, None)
    if first is None or (marks[opened][3].strip() and not _is_python_fence(marks[opened])):
        return first
    if not re.search(r"\"{3}|'{3}", text[start : marks[first].start()]):
        return first
    candidates = [first, *ends]
    code = text[start : marks[candidates[-1]].end()]
    inside = [literal.span() for literal in LITERAL.finditer(code) if literal[0][:3] in ('"""', "'''")]
    for number in candidates:
        offset = marks[number].start() - start
        if not any(begin < offset < end for begin, end in inside):
            return number if number == first or _parses(text[start : marks[number].start()]) else first
    is_last = opened + _MAX_LOOKAHEAD >= len(marks)
    return None if is_last and _parses(text[start:]) else first


def _ends(mark: re.Match[str], opened: re.Match[str]) -> bool:
    """Return whether a fence ends a block: it closes the block or opens another."""
    opens_next = mark[2][0] == opened[2][0] and _opens(mark) and _names_language(mark)
    return _closes(mark, opened) or opens_next


def _is_python_fence(mark: re.Match[str]) -> bool:
    word = _LANGUAGE.match(mark[3])
    return word is not None and PYTHON.fullmatch(word[1]) is not None


def _parses(code: str) -> bool:
    return parse(textwrap.dedent(code)) is not None
