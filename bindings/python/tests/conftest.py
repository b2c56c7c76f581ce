"""What the tests share: files of the repository, and the native program that everything is compared with."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ternary_lm

ROOT = Path(__file__).resolve().parents[3]
TTT = ROOT / "crates/bitnet/models/tiny-stories-ttt.gguf"
STORIES = ROOT / "models/tinystories-5m.gguf"
JAPANESE = ROOT / "models/tiny-ja-ttt.gguf"
EXTRACTOR = ROOT / "models/intent/extractor.gguf"
EXTRACTOR_JA = ROOT / "models/intent/extractor-ja.gguf"
FIXTURES = ROOT / "../shared/fixtures"


def native(*args: str) -> Any:
    """The JSON that the native program prints."""
    names = [os.environ.get("BITNET"), ROOT / "target/debug/bitnet", ROOT / "target/release/bitnet"]
    program = next((str(name) for name in names if name and Path(name).exists()), None)
    if program is None:
        raise RuntimeError("build the native program first (cargo build --bin bitnet), or name it in BITNET")
    done = subprocess.run([program, *args], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, f"{args}: {done.stderr}"
    return json.loads(done.stdout)


def fixtures(name: str) -> Path:
    """A folder of reference vectors; without it the test is skipped, but not in continuous integration."""
    folder = FIXTURES / name
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{folder} is missing")
        pytest.skip(f"{folder} is missing")
    return folder


def tensors(path: Path) -> dict[str, Any]:
    """The f32 and integer tensors of a safetensors file."""
    import numpy

    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    types = {"F32": numpy.float32, "I64": numpy.int64, "I32": numpy.int32, "F64": numpy.float64}
    found = {}
    for name, about in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__" and about["dtype"] in types:
            begin, end = (8 + length + offset for offset in about["data_offsets"])
            values = numpy.frombuffer(data[begin:end], types[about["dtype"]])
            found[name] = values.reshape(about["shape"])
    return found


@cache
def load(path: Path | None = None, threads: int | None = None) -> ternary_lm.Model:
    return ternary_lm.Model(path, threads=threads)


@pytest.fixture(scope="session")
def model() -> ternary_lm.Model:
    """The model in the package."""
    return load()


@pytest.fixture(scope="session")
def stories() -> ternary_lm.Model:
    return load(STORIES)
