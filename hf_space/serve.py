"""Entry point of the Space: the page of app.py and /health, which reports the adapters that it serves."""

from starlette.routing import Route
from streamlit.starlette import App

from bilora.cli.health import health

app = App("app.py", routes=[Route("/health", health)])
