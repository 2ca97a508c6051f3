"""The kinds of bases, one module per kind. Each defines `BASE`, a `BaseKind`."""
