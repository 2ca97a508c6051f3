"""Distributions made on the spot."""

from __future__ import annotations

from pathlib import Path


def distribution(folder: Path, name: str, files: dict[str, str], headers: str = "License: MIT") -> None:
    """Put a distribution of these files into a folder of packages, as pip would."""
    about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0+cpu\n{headers}\n")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (about / "RECORD").write_text("".join(f"{path},,\n" for path in reversed(files)))
