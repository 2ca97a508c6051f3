"""Python source as data: parsing, formatting, signatures and docstrings."""
