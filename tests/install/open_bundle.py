"""Ask every adapter of a published bundle through the public API: `python open_bundle.py BUNDLE`."""

import sys

import bilora

QUESTION = "def area(r): return 3.14159 * r * r"

if __name__ == "__main__":
    bundle = bilora.Bundle.open(sys.argv[1])
    for name in bundle.adapters:
        completion = bundle.generate(name, QUESTION, max_tokens=32)
        if completion.finish not in {"stop", "length"}:
            raise SystemExit(f"open_bundle: {name} answered {completion}")
