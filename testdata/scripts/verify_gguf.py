"""Reads every GGUF model file back with a parser and decoders of its own and compares logits with its case.

Nothing of the writing side is used: the container is parsed here, each element of a ternary block is decoded by its
formula, and architecture `llama` is run with interleaved RoPE on the rows as stored.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q, dequantize
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from common import out_root  # First: it sets the number of threads.
from formats import hf_pack
from hf import load
from model64 import PROJECTIONS, Config, Model, Stepper

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Reader:
    def __init__(self, path: Path):
        self.data, self.at = path.read_bytes(), 0
        assert self.data[:4] == b"GGUF"
        self.at = 4
        version, tensors, kvs = self.take("I"), self.take("Q"), self.take("Q")
        assert version == 3
        self.kv = {}
        for _ in range(kvs):
            key = self.string()
            self.kv[key] = self.value(self.take("I"))
        infos = []
        for _ in range(tensors):
            name = self.string()
            dims = [self.take("Q") for _ in range(self.take("I"))]
            infos.append((name, dims[::-1], self.take("I"), self.take("Q")))
        start = -(-self.at // 32) * 32
        ends = [info[3] for info in infos[1:]] + [len(self.data) - start]
        self.tensors = {n: (s, t, self.data[start + o : start + e]) for (n, s, t, o), e in zip(infos, ends)}

    def take(self, code: str):
        value = struct.unpack_from("<" + code, self.data, self.at)[0]
        self.at += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        size = self.take("Q")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def value(self, kind: int):
        if kind == 8:
            return self.string()
        if kind == 9:
            inner, count = self.take("I"), self.take("Q")
            return [self.value(inner) for _ in range(count)]
        return self.take(SCALARS[kind])


def decode_ternary(shape: list[int], kind: int, data: bytes) -> tuple[np.ndarray, float]:
    """Trits and the scale, element by element."""
    rows, cols = shape
    n, t = rows * cols, np.zeros(rows * cols, np.int8)
    if kind == 36:
        scale = struct.unpack_from("<f", data, n // 4)[0]
        for e in range(n):
            b, g, p = e // 128, e % 128 // 32, e % 32
            t[e] = (data[32 * b + p] >> (6 - 2 * g) & 3) - 1
    elif kind in (134, 135):
        head, block = ("<e", 13) if kind == 134 else ("<f", 16)
        size = struct.calcsize(head) + cols // 64 * block
        scales = [struct.unpack_from(head, data, r * size)[0] for r in range(rows)]
        scale = max(scales)
        assert all(s in (0, scale) for s in scales)
        for e in range(n):
            r, c = divmod(e, cols)
            if scales[r] == 0:
                continue
            at = r * size + struct.calcsize(head) + c // 64 * block
            i, j = c % 64 // 16, c % 16
            if kind == 135:
                t[e] = (data[at + c % 16] >> 2 * i & 3) - 1
            elif j < 15:
                t[e] = ((data[at + 3 * i + j // 5] * 3 ** (4 - j % 5)) % 256 * 3 >> 8) - 1
            else:
                t[e] = ((data[at + 12] * 3 ** (4 - i)) % 256 * 3 >> 8) - 1
    else:
        name = Q(kind).name
        dense = decode_dense(shape, kind, data).ravel()
        scale = float(np.abs(dense).max())
        t = np.rint(dense / scale).astype(np.int8)
        assert (t * np.float32(scale) == dense).all(), name
    return t.reshape(shape), float(scale)


def decode_dense(shape: list[int], kind: int, data: bytes) -> np.ndarray:
    kind, rows = Q(kind), int(np.prod(shape[:-1]))
    block, size = GGML_QUANT_SIZES[kind]
    raw = np.frombuffer(data, np.uint8)[: rows * shape[-1] // block * size].reshape(rows, -1)
    return dequantize(raw, kind).reshape(shape).astype(np.float32)


class Interleaved(Stepper):
    """RoPE on neighbouring pairs, as for files whose rows are permuted."""

    def _rope(self, x: np.ndarray, pos: int) -> np.ndarray:
        d = self.c.hd
        angle = pos * self.c.theta ** (-np.arange(0, d, 2) / d)
        a, b = x[:, 0::2], x[:, 1::2]
        out = np.empty_like(x)
        out[:, 0::2], out[:, 1::2] = a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)
        return out


def model_of(r: Reader) -> tuple[Model, type]:
    arch = r.kv["general.architecture"]
    get = lambda key: r.kv[f"{arch}.{key}"]
    c = Config(
        "", get("embedding_length"), get("feed_forward_length"), get("block_count"), get("attention.head_count"),
        get("attention.head_count_kv"), get("vocab_size"), "output.weight" not in r.tensors,
        "silu" if arch in ("bitnet", "llama") else "relu2", "blk.0.attn_sub_norm.weight" in r.tensors,
        round(get("rope.freq_base"), 3), get("attention.layer_norm_rms_epsilon"), get("rope.dimension_count"),
    )
    embed = decode_dense(*r.tensors["token_embd.weight"])
    head = embed if c.tied else decode_dense(*r.tensors["output.weight"])
    short = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
             "self_attn.attn_sub_norm": "attn_sub_norm", "mlp.ffn_sub_norm": "ffn_sub_norm"}
    m = Model(c, embed, head, {"norm": decode_dense(*r.tensors["output_norm.weight"])})
    for name in c.norms():
        if name != "norm":
            _, i, rest = name.split(".", 2)
            m.norms[name] = decode_dense(*r.tensors[f"blk.{i}.{short[rest]}.weight"])
    for i in range(c.layers):
        for p in PROJECTIONS:
            t, scale = decode_ternary(*r.tensors[f"blk.{i}.{short[p]}.weight"])
            m.t[f"layers.{i}.{p}"], m.alpha[f"layers.{i}.{p}"] = t, scale
    return m, Interleaved if arch == "llama" else Stepper


def transformers_agrees(root: Path, name: str, entry: dict) -> bool:
    """transformers' own GGUF loader, which knows `llama` files of mainline types, finds the folder's weights."""
    loaded = AutoModelForCausalLM.from_pretrained(root / "gguf", gguf_file=name, dtype=torch.float32)
    folder = load(root / "bitnet" / entry["case"] / "packed")
    for key, value in loaded.named_parameters():
        value = value.detach()
        if key.endswith("proj.weight"):
            module, scale = folder.get_submodule(key.removesuffix(".weight")), float(value.abs().max())
            t = (value / scale).round().to(torch.int8).numpy()
            same = (hf_pack(t) == module.weight.numpy()).all() and abs(scale * float(module.weight_scale) - 1) < 1e-6
        else:
            same = torch.equal(value, folder.get_parameter(key))
        if not same:
            print(f"  {name}: transformers reads another {key}")
            return False
    return True


def main() -> None:
    root, failed = out_root(), False
    for name, entry in json.loads((root / "gguf" / "manifest.json").read_text()).items():
        want = load_file(root / "bitnet" / entry["case"] / "expected.safetensors")
        m, stepper = model_of(Reader(root / "gguf" / name))
        got = stepper(m).logits(want["input_ids"].tolist())
        other = (Interleaved if stepper is Stepper else Stepper)(m).logits(want["input_ids"].tolist())
        error = np.abs(got - want["logits_packed_f32"]).max()
        wrong = np.abs(other - want["logits_packed_f32"]).max()
        print(f"  {name}: max error {error:.1e}, with the other RoPE {wrong:.1e}")
        failed |= not error < 2e-5 or not wrong > 1e-2
        if entry["architecture"] == "llama" and entry["ternary"] in ("F16", "TQ2_0"):
            failed |= not transformers_agrees(root, name, entry)
    if failed:
        sys.exit("a GGUF file does not give its case's logits")


if __name__ == "__main__":
    main()
