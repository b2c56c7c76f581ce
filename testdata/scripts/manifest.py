"""gguf/manifest.json: one entry per GGUF file, kept sorted."""

import json
from pathlib import Path

from common import write_json


def record(root: Path, name: str, write) -> None:
    """Writes `gguf/<name>` with `write(path)` and files the entry it returns."""
    manifest = root / "gguf" / "manifest.json"
    entries = json.loads(manifest.read_text()) if manifest.exists() else {}
    entries[name] = write(root / "gguf" / name)
    write_json(manifest, dict(sorted(entries.items())))
