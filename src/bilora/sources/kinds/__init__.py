"""The kinds of source: one module each, which defines SOURCE (docs/add-a-source.md)."""
