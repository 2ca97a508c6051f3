"""The kinds of bases, one module per kind. Each defines `BASE`: its settings, and how a base is built from them."""
