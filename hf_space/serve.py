"""Door of the Space: the page of app.py, and beside it /health, which says which adapters it serves."""

from starlette.routing import Route
from streamlit.starlette import App

from bilora.cli.health import health

app = App("app.py", routes=[Route("/health", health)])
