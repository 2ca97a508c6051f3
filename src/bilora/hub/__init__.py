"""The Hugging Face hub: the one room that speaks to it in order to write."""
