"""Python source as data: read as the parser reads it, tidied, and shown by its signatures."""
