"""Ternary Llama checkpoints (SiLU, no sub-norms, `bitlinear`: the product is DIVIDED by weight_scale) and their GGUF files.

`llama_tiny`: bf16 scales, GQA, untied, theta and epsilon of Falcon3-1.58bit; I2_S files permuted and not.
`llama_256`: rows of 256 for TQ2_0, f32 scales whose inverse is exact in f16, tied, one row of zeros.
"""

import numpy as np

from common import bf16, out_root, write_safetensors
from ggufs import write_model
from hf import config_json, expected, packed_tensors, write_checkpoint
from manifest import record
from model64 import Config, absmean, find_ids, random_master

import torch

TINY = Config("llama_tiny", hidden=128, ffn=128, layers=2, heads=4, kv_heads=2, vocab=96, tied=False, act="silu",
              sub_norms=False, theta=1000042, eps=1e-6, embed_std=0.05)
WIDE = Config("llama_256", hidden=256, ffn=256, layers=1, heads=4, kv_heads=1, vocab=96, tied=True, act="silu",
              sub_norms=False)


def build(c: Config, length: int, f16_scales: bool, zero_row=None, adjust=lambda m: None, **search):
    """The model and its ids. The stored scale is bf16(1/absmean), or the f32 inverse of an f16 number."""
    for seed in range(2000):
        m, master = random_master(c, seed)
        adjust(m)
        if zero_row is not None:
            master[zero_row[0]][zero_row[1]] = 0
        scales = {}
        try:
            for name, w in master.items():
                m.t[name], alpha = absmean(w)
                if f16_scales:
                    m.alpha[name] = float(np.float16(alpha))
                    scales[name] = np.float32(1 / m.alpha[name])
                else:
                    scales[name] = bf16(np.array([1 / alpha]))[0]
                    m.alpha[name] = 1 / float(scales[name])
        except ValueError:
            continue
        ids = find_ids(m, length, **search)
        if ids is not None:
            return m, ids, scales
    raise RuntimeError("no seed found")


def main() -> None:
    root = out_root()

    m, ids, scales = build(TINY, 6, f16_scales=False)
    folder = root / "bitnet" / TINY.name
    config = config_json(TINY, {"linear_class": "bitlinear", "quantization_mode": "offline"}, rope_scaling=None)
    write_checkpoint(folder / "packed", config, packed_tensors(m, scales.get))
    write_safetensors(folder / "expected.safetensors", expected(folder / "packed", "packed", m, ids))
    record(root, "llama_tiny.I2_S.gguf", lambda p: write_model(p, m, "llama", "I2_S", permuted=True))
    record(root, "llama_tiny.I2_S-half.gguf", lambda p: write_model(p, m, "bitnet", "I2_S", embed=(m.embed, "BF16")))

    m, ids, scales = build(WIDE, 6, f16_scales=True, zero_row=("layers.0.mlp.gate_proj", 77), distinct=4)
    folder = root / "bitnet" / WIDE.name
    # No linear_class: the default is `bitlinear`.
    config = config_json(WIDE, {"modules_to_not_convert": None})
    write_checkpoint(folder / "packed", config, packed_tensors(m, scales.get, torch.float32))
    write_safetensors(folder / "expected.safetensors", expected(folder / "packed", "packed", m, ids, with_trace=False))
    record(root, "llama_256.TQ2_0.gguf", lambda p: write_model(p, m, "llama", "TQ2_0", permuted=True))


if __name__ == "__main__":
    main()
