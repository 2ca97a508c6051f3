"""Extract the program or docstring from a model's reply, and insert a docstring into a function."""
