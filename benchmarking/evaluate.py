"""Documented entry point: evaluate all tasks, then run the gate."""

from bilora.cli.benchmark import main

if __name__ == "__main__":
    raise SystemExit(main())
