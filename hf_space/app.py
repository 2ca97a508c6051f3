"""Entry point of the page, for `streamlit run hf_space/app.py`."""

from bilora.cli.page import page

page()
