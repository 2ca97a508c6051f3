"""The Hugging Face hub: the only package that writes to it."""
