"""Installed distributions for tests of packages as data."""

from __future__ import annotations

from pathlib import Path


def write_distribution(folder: Path, name: str, files: dict[str, str], headers: str = "License: MIT") -> None:
    """Install a distribution of these files into a folder, as pip would."""
    dist_info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    dist_info.mkdir()
    (dist_info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0+cpu\n{headers}\n")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (dist_info / "RECORD").write_text("".join(f"{path},,\n" for path in reversed(files)))
