"""`sharded_tiny`: a BitNet checkpoint in four shards with an index, its config in transformers 5's new spelling."""

import numpy as np

from common import out_root, write_safetensors
from hf import config_json, expected, packed_tensors, write_checkpoint
from model64 import Config, absmean, find_ids, random_master
from common import bf16

# Small embeddings, so that the epsilon of the first norm matters.
CONFIG = Config("sharded_tiny", hidden=64, ffn=128, layers=2, heads=4, kv_heads=2, vocab=96, tied=False, act="relu2",
                sub_norms=True, theta=250000.0, embed_std=0.05)
ZERO_ROW = ("layers.1.mlp.up_proj", 5)


def build():
    """The model, and ids whose activations keep clear of rounding boundaries."""
    for seed in range(1000):
        m, master = random_master(CONFIG, seed)
        master[ZERO_ROW[0]][ZERO_ROW[1]] = 0  # A row of zeros: formats with a scale per row store scale 0 for it.
        try:
            for name, w in master.items():
                m.t[name], alpha = absmean(w)
                m.alpha[name] = float(bf16(np.array([alpha]))[0])
        except ValueError:
            continue
        ids = find_ids(m, 6)
        if ids is not None:
            return m, ids
    raise RuntimeError("no seed found")


def main() -> None:
    m, ids = build()
    root = out_root() / "bitnet" / CONFIG.name
    # transformers 5 saves rope_parameters and dtype instead of rope_theta and torch_dtype.
    config = config_json(
        CONFIG,
        {"linear_class": "autobitlinear", "quantization_mode": "offline"},
        rope_theta=...,
        torch_dtype=...,
        rope_parameters={"rope_theta": CONFIG.theta, "rope_type": "default"},
        dtype="bfloat16",
    )
    write_checkpoint(root / "packed", config, packed_tensors(m, lambda n: m.alpha[n]), shards=4)
    write_safetensors(root / "expected.safetensors", expected(root / "packed", "packed", m, ids))


if __name__ == "__main__":
    main()
