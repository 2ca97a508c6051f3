"""Documented entry point: measure all tasks now and let the gate decide."""

from bilora.cli.benchmark import main

if __name__ == "__main__":
    raise SystemExit(main())
