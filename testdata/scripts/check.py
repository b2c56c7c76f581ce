"""Drift check: makes the files again in a temporary folder and compares every byte with what is committed.

`python check.py` for everything, `python check.py case_chat ...` for some scripts (the rest is copied). Another CPU may
round the last bit of a float32 sum differently, so a safetensors file whose bytes differ passes if names, shapes,
dtypes and integers are equal and floats agree to 2e-5; it is then reported as such.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from generate import FOLDERS

HERE = Path(__file__).resolve().parent
TOLERANCE = 2e-5


def files(root: Path) -> dict[str, Path]:
    return {str(p.relative_to(root)): p for f in FOLDERS for p in sorted((root / f).rglob("*")) if p.is_file()}


def close(a: Path, b: Path) -> str | None:
    """How two safetensors files of equal layout differ, or None if by more than rounding."""
    x, y = load_file(a), load_file(b)
    if x.keys() != y.keys():
        return None
    worst = 0.0
    for name, value in x.items():
        other = y[name]
        if value.shape != other.shape or value.dtype != other.dtype:
            return None
        if value.dtype != torch.float32:
            if not torch.equal(value, other):
                return None
        elif value.numel():
            worst = max(worst, float((value - other).abs().max()))
    return f"floats agree to {worst:.1e}" if worst <= TOLERANCE else None


def main(names: list[str]) -> int:
    committed, drift = files(HERE.parent), 0
    with tempfile.TemporaryDirectory() as temp:
        if names:
            for folder in FOLDERS:
                shutil.copytree(HERE.parent / folder, Path(temp) / folder)
        run = [sys.executable, str(HERE / "generate.py"), *names]
        subprocess.run(run, check=True, env={**os.environ, "TESTDATA_OUT": temp})
        made = files(Path(temp))
        for name in sorted(committed.keys() | made.keys()):
            if name not in made or name not in committed:
                drift += 1
                print(f"DRIFT {name}: {'not made' if name not in made else 'not committed'}")
            elif committed[name].read_bytes() != made[name].read_bytes():
                note = close(committed[name], made[name]) if name.endswith(".safetensors") else None
                drift += note is None
                print(f"{'DRIFT' if note is None else 'same '} {name}: {note or 'bytes differ'}")
    print(f"{len(committed)} files, {drift} drifted")
    return 1 if drift else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
