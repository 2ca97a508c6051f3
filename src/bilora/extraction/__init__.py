"""Read a model's answer: the program or the docstring that it holds, and put a docstring into a function."""
