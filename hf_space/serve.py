"""Entry point of the Space: the page, and /health, which reports the loaded adapters."""

from starlette.routing import Route
from streamlit.starlette import App

from bilora.cli.health import health

app = App("app.py", routes=[Route("/health", health)])
