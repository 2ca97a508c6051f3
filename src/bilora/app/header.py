"""The top of the page: style, title, backend, and a description of each task."""

from __future__ import annotations

from collections.abc import Container, Mapping

import streamlit as st

from bilora.app.conversation import escape_markdown
from bilora.tasks.task import Task

_STYLE = """<style>
.stMainBlockContainer {padding-top: 2.5rem; max-width: 80rem}
.stMainBlockContainer h1 {font-size: 1.75rem; padding: 0 0 .4rem}
.stMainBlockContainer h3 {font-size: 1.1rem; padding: .3rem 0 .5rem}
.stTextArea textarea, .stText {font-family: "Source Code Pro", monospace; font-size: .875rem}
.stExpander summary code {font: inherit; color: inherit; background: none; padding: 0}
@media (max-width: 40rem) {
  .stMainBlockContainer {padding: 1rem 1rem 3rem}
  .stMainBlockContainer .stVerticalBlock {gap: .6rem}
}
</style>"""
"""A question's title is `code`, so that no Markdown is rendered, but looks like text."""


def draw_header(caption: str = "") -> None:
    """Draw the style, the title and a caption, without Markdown."""
    st.html(_STYLE)
    st.title("BiLoRA", anchor=False)
    if caption:
        st.caption(escape_markdown(caption))


def draw_task_descriptions(tasks: Mapping[str, Task], adapters: Container[str] | None = None) -> None:
    """Draw each task's title and description.

    Args:
        adapters: the tasks with an adapter; None if that is unknown.
    """
    lines = []
    for name, task in tasks.items():
        absent = " It has no adapter here." if adapters is not None and name not in adapters else ""
        described = f": {task.description}" if task.description else ""
        lines.append(f"- **{escape_markdown(task.title)}**{escape_markdown(described + absent)}")
    st.markdown("\n".join(lines))
