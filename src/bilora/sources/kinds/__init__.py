"""One module per kind of source. Each defines SOURCE (docs/add-a-source.md)."""
