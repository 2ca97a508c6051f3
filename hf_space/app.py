"""Entry point of `streamlit run hf_space/app.py`: the page is `bilora.app`."""

from bilora.cli.page import page

page()
