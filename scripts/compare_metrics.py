"""Documented entry point: compare two results or baseline files."""

from bilora.cli.compare import main

if __name__ == "__main__":
    raise SystemExit(main())
