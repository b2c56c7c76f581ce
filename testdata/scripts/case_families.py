"""families/: tiny models of further families with what a separate float64 model makes of them.

Models with a scale per group of weights (Qwen3, YaRN) and an embedding model (Gemma 3 with a norm before every projection). Nothing but
numpy is needed: the files are written from their byte layouts, and the model is written from its formulas. The same formulas were compared
with transformers on larger models, which do not lie here.

    python testdata/scripts/case_families.py        # writes testdata/families
"""

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np

f16, f32 = np.float16, np.float32
STRING, UINT32, FLOAT32, BOOL = 8, 4, 6, 7
F32, F16, I2_S, Q2_0, PQ2_0, PTQ1_0 = 0, 1, 36, 42, 142, 143
# Distance that every int8 code keeps from a rounding boundary.
CLEAR = 2e-4


def root() -> Path:
    return Path(os.environ.get("TESTDATA_OUT", Path(__file__).resolve().parent.parent)) / "families"


def rng(name: str, seed: int = 0) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), seed])


# ---- files

def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def entry(key: str, value) -> bytes:
    if isinstance(value, str):
        return string(key) + struct.pack("<I", STRING) + string(value)
    if isinstance(value, bool):
        return string(key) + struct.pack("<IB", BOOL, value)
    if isinstance(value, int):
        return string(key) + struct.pack("<II", UINT32, value)
    return string(key) + struct.pack("<If", FLOAT32, value)


def write_gguf(path: Path, metadata: dict, tensors: list) -> None:
    """`tensors`: name, shape slowest first, type id, bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(entry(k, v) for k, v in metadata.items())
    offset = 0
    for name, shape, kind, data in tensors:
        head += string(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", d) for d in reversed(shape))
        head += struct.pack("<IQ", kind, offset)
        offset += -(-len(data) // 32) * 32
    pad = lambda b: b + bytes(-len(b) % 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pad(head) + b"".join(pad(data) for *_, data in tensors))


def write_safetensors(path: Path, tensors: dict) -> None:
    names = {np.dtype(np.float32): "F32", np.dtype(np.float64): "F64", np.dtype(np.int64): "I64", np.dtype(np.int8): "I8"}
    header, data = {}, b""
    for name, x in tensors.items():
        x = np.ascontiguousarray(x)
        header[name] = {"dtype": names[x.dtype], "shape": list(x.shape), "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# ---- block formats: codes `t + 1`, one f16 scale for each group

def q2(t: np.ndarray, d: np.ndarray, block: int) -> bytes:
    """d, then four consecutive weights in each byte, the first in the lowest bits."""
    codes = (t + 1).astype(np.uint8).reshape(-1, block // 4, 4)
    qs = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
    return np.concatenate([d.astype(f16).reshape(-1, 1).view(np.uint8), qs], axis=1).tobytes()


def ptq1(t: np.ndarray, d: np.ndarray) -> bytes:
    """qs[24], qh[2], d: five trits in each byte, the first most significant, strided; four in the last two bytes."""
    codes = (t + 1).astype(np.uint32).reshape(-1, 128)
    out = np.zeros((len(codes), 28), np.uint8)

    def put(byte, elements):
        v = sum(codes[:, e] * 3 ** (4 - k) for k, e in enumerate(elements))
        out[:, byte] = (256 * v + 242) // 243

    for i in range(16):
        put(i, [i + 16 * k for k in range(5)])
    for i in range(8):
        put(16 + i, [80 + i + 8 * k for k in range(5)])
    for i in range(2):
        put(24 + i, [120 + i + 2 * k for k in range(4)])
    out[:, 26:] = d.astype(f16).reshape(-1, 1).view(np.uint8)
    return out.tobytes()


def i2_s(t: np.ndarray, scale: np.float32) -> bytes:
    codes = (t.reshape(-1, 4, 32) + 1).astype(np.uint8)
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


# ---- formulas, in float64

def rms(x, gain, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def frequencies(c):
    """Plain, or YaRN, and the factor for cosine and sine."""
    d, base = c["hd"], c["theta"]
    theta = base ** (-np.arange(0, d, 2) / d)
    if "yarn" not in c:
        return theta, 1.0
    factor, original = c["yarn"]
    place = lambda turns: d * np.log(original / (2 * np.pi * turns)) / (2 * np.log(base))
    low, high = max(np.floor(place(32)), 0), min(np.ceil(place(1)), d - 1)
    keep = 1 - np.clip((np.arange(d // 2) - low) / max(0.001, high - low), 0, 1)
    return (1 - keep) * theta / factor + keep * theta, 1 + 0.1 * np.log(factor)


def turn(x, c):
    """Halves: element i with i + hd / 2. `x` is [tokens, heads, hd]."""
    theta, factor = frequencies(c)
    angle = np.arange(len(x))[:, None, None] * theta
    cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Model:
    """Norms by name, weights by name as `codes, scale of each weight`."""

    def __init__(self, c, norms, weights, embed, head):
        self.c, self.norms, self.weights, self.embed, self.head = c, norms, weights, embed, head
        self.codes = {}
        self.nearest = 0.5

    def project(self, name, x):
        t, scales = self.weights[name]
        if not self.c["own_norms"]:
            return x @ (t * scales).T
        z = rms(x, self.norms[name + "_norm_in"], self.c["eps"])
        s = 127 / np.maximum(np.abs(z).max(-1, keepdims=True), 1e-5)
        q = np.round(z * s)
        self.nearest = min(self.nearest, np.abs(np.abs(z * s - np.floor(z * s)) - 0.5).min())
        self.codes[name] = q.astype(np.int8)
        return q @ (t * scales).T / s

    def run(self, ids):
        c, n = self.c, len(ids)
        x = self.embed[ids].astype(np.float64) * c["embed_scale"]
        for l in range(c["layers"]):
            p = f"blk.{l}."
            h = rms(x, self.norms[p + "attn_norm"], c["eps"])
            split = lambda y, heads: y.reshape(n, heads, c["hd"])
            q = split(self.project(p + "attn_q", h), c["heads"])
            k, v = (split(self.project(p + m, h), c["kv"]) for m in ("attn_k", "attn_v"))
            q = turn(rms(q, self.norms[p + "attn_q_norm"], c["eps"]), c)
            k = turn(rms(k, self.norms[p + "attn_k_norm"], c["eps"]), c)
            k, v = (np.repeat(y, c["heads"] // c["kv"], axis=1) for y in (k, v))
            scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(c["hd"])
            scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            out = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v).reshape(n, -1)
            out = self.project(p + "attn_output", out)
            x = x + (rms(out, self.norms[p + "post_attention_norm"], c["eps"]) if c["sandwich"] else out)
            h = rms(x, self.norms[p + "ffn_norm"], c["eps"])
            gate, up = self.project(p + "ffn_gate", h), self.project(p + "ffn_up", h)
            if c["act"] == "silu":
                gate = gate / (1 + np.exp(-gate))
            else:
                gate = gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
            out = self.project(p + "ffn_down", gate * up)
            x = x + (rms(out, self.norms[p + "post_ffw_norm"], c["eps"]) if c["sandwich"] else out)
        return rms(x, self.norms["output_norm"], c["eps"])

    def logits(self, ids):
        return self.run(ids) @ self.head.T.astype(np.float64)


def shapes(c):
    q, kv, h, f = c["heads"] * c["hd"], c["kv"] * c["hd"], c["hidden"], c["ffn"]
    return {"attn_q": (q, h), "attn_k": (kv, h), "attn_v": (kv, h), "attn_output": (h, q), "ffn_gate": (f, h),
            "ffn_up": (f, h), "ffn_down": (h, f)}


def random_norms(g, c):
    gain = lambda size: g.uniform(0.5, 1.5, size).astype(f16).astype(f32)
    norms = {"output_norm": gain(c["hidden"])}
    for l in range(c["layers"]):
        p = f"blk.{l}."
        norms.update({p + n: gain(c["hidden"]) for n in ("attn_norm", "ffn_norm")})
        norms.update({p + n: gain(c["hd"]) for n in ("attn_q_norm", "attn_k_norm")})
        if c["sandwich"]:
            norms.update({p + n: gain(c["hidden"]) for n in ("post_attention_norm", "post_ffw_norm")})
        if c["own_norms"]:
            norms.update({p + n + "_norm_in": gain(k) for n, (_, k) in shapes(c).items()})
    return norms


def grouped(g, shape, group, size):
    """Codes, the f16 scale of each group, and that of each weight."""
    t = g.integers(-1, 2, shape)
    d = (size * g.uniform(0.5, 1.5, (shape[0], shape[1] // group))).astype(f16)
    return t, d, np.repeat(d.astype(np.float64), group, axis=1)


def keys(arch, c, name):
    m = {"general.architecture": arch, "general.name": name, f"{arch}.block_count": c["layers"],
         f"{arch}.context_length": 256, f"{arch}.embedding_length": c["hidden"], f"{arch}.feed_forward_length": c["ffn"],
         f"{arch}.attention.head_count": c["heads"], f"{arch}.attention.head_count_kv": c["kv"],
         f"{arch}.attention.key_length": c["hd"], f"{arch}.attention.value_length": c["hd"],
         f"{arch}.attention.layer_norm_rms_epsilon": float(c["eps"]), f"{arch}.rope.freq_base": float(c["theta"]),
         f"{arch}.vocab_size": c["vocab"], "tokenizer.ggml.model": "no_vocab"}
    if "yarn" in c:
        factor, original = c["yarn"]
        m |= {f"{arch}.rope.scaling.type": "yarn", f"{arch}.rope.scaling.factor": float(factor),
              f"{arch}.rope.scaling.original_context_length": original}
    return m


def greedy(model, prompt, steps):
    """The likeliest token again and again, and its lead before the next."""
    chosen, margin = [], []
    for _ in range(steps):
        last = model.logits(np.array(prompt))[-1]
        best = np.sort(last)
        chosen.append(int(last.argmax()))
        margin.append(best[-1] - best[-2])
        prompt = prompt + chosen[-1:]
    return chosen, np.array(margin)


def language(name, c, group, kind, suffix):
    """A model with a scale per group, its embedding and head ternary as well; `kind(tensor)` is the type of a tensor."""
    g = rng(name)
    norms = random_norms(g, c)
    # Channels that stand out, as trained models have them.
    norms["blk.0.attn_norm"][[3, 17]] = 12.0
    stored = {}
    for l in range(c["layers"]):
        for n, shape in shapes(c).items():
            stored[f"blk.{l}.{n}"] = grouped(g, shape, group, 1.2 / np.sqrt(shape[1]))
    stored["token_embd"] = grouped(g, (c["vocab"], c["hidden"]), group, 0.1)
    if not c["tied"]:
        stored["output"] = grouped(g, (c["vocab"], c["hidden"]), group, 0.2)
    dense = lambda n: stored[n][0] * stored[n][2]
    weights = {n: (t, s) for n, (t, _, s) in stored.items() if n.startswith("blk")}
    model = Model(c, norms, weights, dense("token_embd"), dense("token_embd" if c["tied"] else "output"))
    ids = g.integers(0, c["vocab"], c["tokens"])
    folder = root() / "qwen3_group" / name
    encode = {Q2_0: lambda t, d: q2(t, d, 64), PQ2_0: lambda t, d: q2(t, d, 128), PTQ1_0: ptq1}
    tensors = [(n + ".weight", t.shape, kind(n), encode[kind(n)](t, d)) for n, (t, d, _) in stored.items()]
    tensors += [(n + ".weight", v.shape, F32, v.tobytes()) for n, v in norms.items()]
    write_gguf(folder / f"{name}.{suffix}.gguf", keys("qwen3", c, name), tensors)
    logits = model.logits(ids)
    theta, factor = frequencies(c)
    out = {"input_ids": ids.astype(np.int64), "logits_f32": logits.astype(f32), "rope.inv_freq": theta.astype(f32)}
    out |= {"rope.cos": (np.cos(theta) * factor).astype(f32), "rope.sin": (np.sin(theta) * factor).astype(f32)}
    # The prompt after which the lead is clear for the longest.
    runs = [(n, *greedy(model, list(ids[:n]), 8)) for n in range(4, 14)]
    clear = lambda run: int(np.argmax(np.append(run[2] <= 0.06, True)))
    n, chosen, margin = max(runs, key=clear)
    out |= {"prompt_ids": ids[:n].astype(np.int64), "greedy_f32": np.array(chosen, np.int64)}
    out["greedy_margin"] = margin.astype(f32)
    write_safetensors(folder / "expected.safetensors", out)
    print(name, "std", logits.std().round(3), "greedy margins", np.round(margin, 2))


def embedding(name, c, pooling):
    """A Gemma 3 with a norm and int8 codes before each projection; one scale per matrix, as I2_S."""
    for seed in range(2000):
        g = rng(name, seed)
        norms = random_norms(g, c)
        scale = lambda shape: f32(1 / np.sqrt(shape[1]))
        stored = {f"blk.0.{n}": (g.integers(-1, 2, s), scale(s)) for n, s in shapes(c).items()}
        embed = (g.normal(size=(c["vocab"], c["hidden"])) * 0.1).astype(f16)
        model = Model(c, norms, {n: (t, np.float64(a)) for n, (t, a) in stored.items()}, embed, None)
        ids = g.integers(3, c["vocab"], c["tokens"])
        ids[0], ids[-1] = 2, 1
        hidden = model.run(ids)
        if model.nearest > CLEAR:
            break
    else:
        raise RuntimeError("no seed keeps its codes clear of rounding boundaries")
    folder = root() / "bitnet_embedding_gemma3" / name
    tensors = [("token_embd.weight", embed.shape, F16, embed.tobytes())]
    tensors += [(n + ".weight", t.shape, I2_S, i2_s(t, a)) for n, (t, a) in stored.items()]
    tensors += [(n + ".weight", v.shape, F16, v.astype(f16).tobytes()) for n, v in norms.items()]
    numbers = {"mean": 1, "last": 3}
    extra = {"gemma3.pooling_type": numbers[pooling], "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.bos_token_id": 2}
    write_gguf(folder / f"{name}.I2_S.gguf", keys("gemma3", c, name) | extra, tensors)
    unit = lambda v: (v / np.sqrt((v * v).sum())).astype(f32)
    out = {"text0.ids": ids.astype(np.int64), "text0.hidden": hidden.astype(f32)}
    out |= {"text0.mean": unit(hidden.mean(0)), "text0.last": unit(hidden[-1])}
    for n, module in {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj"}.items():
        out[f"text0.codes.layers.0.self_attn.{module}"] = model.codes["blk.0." + n]
    write_safetensors(folder / "expected.safetensors", out)
    text = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_lasttoken": pooling == "last"}
    (folder / "pooling_config.json").write_text(json.dumps(text) + "\n")
    print(name, "seed", seed, "nearest", model.nearest)


QWEN3 = {"eps": 1e-6, "act": "silu", "sandwich": False, "own_norms": False, "embed_scale": 1.0, "layers": 1}


def main() -> None:
    c = QWEN3 | {"hidden": 128, "ffn": 128, "heads": 2, "kv": 1, "hd": 64, "vocab": 32, "tied": True, "theta": 1e6,
                 "yarn": (4.0, 8), "tokens": 20}
    # Types may differ from tensor to tensor of a file.
    language("g128_tiny", c, 128, lambda n: PQ2_0 if "ffn" in n else PTQ1_0, "mixed")
    c = QWEN3 | {"hidden": 64, "ffn": 128, "heads": 4, "kv": 2, "hd": 32, "vocab": 32, "tied": False, "theta": 1e4,
                 "yarn": (2.0, 512), "tokens": 20}
    language("g64_tiny", c, 64, lambda n: Q2_0, "Q2_0_g64")
    c = {"eps": 1e-6, "act": "gelu", "sandwich": True, "own_norms": True, "layers": 1, "hidden": 128, "ffn": 128,
         "heads": 2, "kv": 1, "hd": 64, "vocab": 24, "theta": 1e4, "tokens": 8, "embed_scale": np.sqrt(128.0)}
    embedding("tiny", c, "last")


if __name__ == "__main__":
    main()
