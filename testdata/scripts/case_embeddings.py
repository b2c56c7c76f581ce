"""One BitNet layer under quantised embeddings and heads: Q8_0, Q6_K (tied), Q4_0, and Q4_K with a Q6_K head.

Q8_0 and Q4_0 come from the gguf package's quantisers. It has none for Q4_K and Q6_K, so those blocks are drawn at
random field by field. The values are what the gguf package's `dequantize` says; transformers runs on them in float32.
units/dequant.safetensors holds one row of every block format in the same way.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q, dequantize, quantize

import formats
from common import bf16, out_root, rng, tensor, write_safetensors
from ggufs import write_model
from hf import config_json, expected, packed_tensors, write_checkpoint
from manifest import record
from model64 import Config, absmean, find_ids, random_master

HIDDEN, VOCAB = 256, 64
VARIANTS = {"q8_0": ("Q8_0", "Q8_0"), "q6_k": ("Q6_K", None), "q4_0": ("Q4_0", "Q4_0"), "q4_k": ("Q4_K", "Q6_K")}
# Byte offsets of the f16 fields of each block, and the largest product of the block's integer fields.
F16_FIELDS = {
    "Q4_0": ((0,), 8), "Q4_1": ((0, 2), 15), "Q5_0": ((0,), 16), "Q5_1": ((0, 2), 31), "Q8_0": ((0,), 128),
    "Q2_K": ((80, 82), 15 * 3), "Q3_K": ((108,), 32 * 4), "Q4_K": ((0, 2), 63 * 15), "Q5_K": ((0, 2), 63 * 31),
    "Q6_K": ((208,), 128 * 32),
}


def random_blocks(kind: str, rows: int, cols: int, size: float, g: np.random.Generator) -> np.ndarray:
    """Rows of blocks whose integer fields are random bits and whose f16 scales give values up to about `size`."""
    block, nbytes = GGML_QUANT_SIZES[Q[kind]]
    data = g.integers(0, 256, (rows, cols // block, nbytes), dtype=np.uint8)
    fields, product = F16_FIELDS[kind]
    for i, offset in enumerate(fields):
        # The second field scales the minimum, which is subtracted (or added in Q4_1 and Q5_1).
        scale = g.uniform(0.5, 1, data.shape[:2]) * size / (product if i == 0 else product / 15)
        if kind.endswith("_1") and i == 1:
            scale = -g.uniform(0.5, 1, data.shape[:2]) * size
        data[..., offset : offset + 2] = scale.astype(np.float16)[..., None].view(np.uint8)
    return data.reshape(rows, -1)


def rows_of(kind: str, rows: int, size: float, g: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and the values they stand for."""
    if kind in ("Q8_0", "Q4_0"):
        data = quantize((g.normal(size=(rows, HIDDEN)) * size).astype(np.float32), Q[kind])
    else:
        data = random_blocks(kind, rows, HIDDEN, 4 * size, g)
    return data, dequantize(data, Q[kind]).astype(np.float32)


def model(name: str) -> None:
    embed_kind, head_kind = VARIANTS[name]
    tied = head_kind is None
    c = Config(f"emb_{name}", HIDDEN, 128, 1, 4, 1, VOCAB, tied, "relu2", True)
    for seed in range(1000):
        m, master = random_master(c, seed)
        g = rng(c.name + "/embedding", seed)
        data, m.embed = rows_of(embed_kind, VOCAB, HIDDEN**-0.5 if tied else 1.0, g)
        head_data, m.head = (data, m.embed) if tied else rows_of(head_kind, VOCAB, 0.3, g)
        try:
            for key, w in master.items():
                m.t[key], alpha = absmean(w)
                m.alpha[key] = float(bf16(np.array([alpha]))[0])
        except ValueError:
            continue
        ids = find_ids(m, 4, distinct=4 if tied else 6)
        if ids is not None:
            break
    else:
        raise RuntimeError("no seed found")
    with tempfile.TemporaryDirectory() as temp:
        config = config_json(c, {"linear_class": "autobitlinear", "quantization_mode": "offline"})
        write_checkpoint(Path(temp), config, packed_tensors(m, m.alpha.get, embed_dtype=torch.float32))
        tensors = expected(Path(temp), "packed", m, ids, with_trace=False, tag=c.name)
    tensors["embed_rows"] = tensor(m.embed[:4], torch.float32)
    if not tied:
        tensors["head_rows"] = tensor(m.head[:4], torch.float32)
    root = out_root()
    write_safetensors(root / "bitnet" / c.name / "expected.safetensors", tensors)
    record(
        root,
        f"{c.name}.I2_S.gguf",
        lambda p: write_model(
            p, m, "bitnet-b1.58", "I2_S", embed=(data, embed_kind), head=None if tied else (head_data, head_kind)
        ),
    )


def units() -> None:
    """`<type>.bytes` and `<type>.values`: one row of 512 elements in each block format."""
    g, tensors, cols = rng("units"), {}, 512
    for kind in F16_FIELDS:
        data = random_blocks(kind, 1, cols, 2.0, g)
        tensors[kind] = data, dequantize(data, Q[kind])
    x = g.normal(size=(1, cols)).astype(np.float32)
    half = x.astype(np.float16)
    tensors["F16"] = half.view(np.uint8), half
    tensors["BF16"] = quantize(x, Q.BF16), bf16(x)
    alpha, t = np.float32(0.6875), g.integers(-1, 2, (2, cols), dtype=np.int8)
    t[0, 256:] = 0  # TQ: a block of zeros, whose scale is 0.
    for kind in ("TQ1_0", "TQ2_0"):
        data = quantize(t * alpha, Q[kind])
        assert (dequantize(data, Q[kind]) == t * alpha).all()
        tensors[kind] = data, t * alpha
    t[0] = 0  # IQ*_BN: a row of zeros, whose scale is 0.
    tensors["IQ1_BN"] = formats.iq1_bn(t, alpha), t * alpha
    tensors["IQ2_BN"] = formats.iq2_bn(t, alpha), t * alpha
    tensors["I2_S"] = formats.i2_s(t, alpha), t * alpha
    out = {}
    for kind, (data, values) in sorted(tensors.items()):
        assert np.isfinite(values).all(), kind
        out[f"{kind}.bytes"] = tensor(data.copy(), torch.uint8)
        out[f"{kind}.values"] = tensor(values.astype(np.float32), torch.float32)
    write_safetensors(out_root() / "units" / "dequant.safetensors", out)


def main() -> None:
    units()
    for name in VARIANTS:
        model(name)


if __name__ == "__main__":
    main()
