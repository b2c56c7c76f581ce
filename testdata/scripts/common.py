"""Paths, seeds and deterministic writers that every generator script uses."""

import json
import os
import zlib
from pathlib import Path

# One thread and no compilation: sums in a fixed order, so that files come out the same every time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from safetensors.torch import save_file

torch.set_num_threads(1)
torch.manual_seed(0)

SCRIPTS = Path(__file__).resolve().parent


def out_root() -> Path:
    """The `testdata` folder to write: `TESTDATA_OUT`, or the one that these scripts lie in."""
    return Path(os.environ.get("TESTDATA_OUT", SCRIPTS.parent))


def rng(case: str, *numbers: int) -> np.random.Generator:
    """A generator that depends on the case's name and the numbers only."""
    return np.random.default_rng([zlib.crc32(case.encode()), *numbers])


def bf16(x: np.ndarray) -> np.ndarray:
    """Rounds f32/f64 values to bfloat16 (half to even), returned as f32."""
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(torch.bfloat16).float().numpy()


def tensor(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """A contiguous torch tensor of the given dtype."""
    return torch.from_numpy(np.ascontiguousarray(x)).to(dtype).contiguous()


def write_safetensors(path: Path, tensors: dict, metadata: dict | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata=metadata)
    path.chmod(0o644)


def write_json(path: Path, value, indent: int | None = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
