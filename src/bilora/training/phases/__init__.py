"""The training phases, one module per algorithm. To add one: docs/add-a-phase.md."""
