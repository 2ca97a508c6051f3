"""Documented entry point: read the shards of ratings into all_feedback.json and training_pairs.json."""

from bilora.cli.feedback import main

if __name__ == "__main__":
    raise SystemExit(main())
