"""The Streamlit page to use the adapters and rate their answers."""
