"""families/hunyuan/tiny: a small HunYuan (dense) with a scale per group, as a folder and as GGUF, and the logits of transformers.

The class turns the heads of q and k first and normalises them then, and makes its rotary base larger by `alpha`; both are
in the logits. Weights are ternary times one f16 scale for each 64 of a row, stored as F16 in `model.safetensors`.

    refs/bin/python testdata/scripts/case_hunyuan.py
"""

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from case_families import F32, Q2_0, greedy, grouped, keys, q2, rng, write_gguf
from common import out_root, write_json, write_safetensors

C = {"hidden": 128, "ffn": 128, "heads": 2, "kv": 1, "hd": 64, "vocab": 48, "layers": 2, "eps": 1e-5, "theta": 10000.0}
ALPHA, TOKENS, CONTEXT = 1000.0, 40, 256
SHAPES = {
    "attn_q": ("self_attn.q_proj", C["heads"] * C["hd"], C["hidden"]),
    "attn_k": ("self_attn.k_proj", C["kv"] * C["hd"], C["hidden"]),
    "attn_v": ("self_attn.v_proj", C["kv"] * C["hd"], C["hidden"]),
    "attn_output": ("self_attn.o_proj", C["hidden"], C["heads"] * C["hd"]),
    "ffn_gate": ("mlp.gate_proj", C["ffn"], C["hidden"]),
    "ffn_up": ("mlp.up_proj", C["ffn"], C["hidden"]),
    "ffn_down": ("mlp.down_proj", C["hidden"], C["ffn"]),
}
NORMS = {
    "attn_norm": ("input_layernorm", C["hidden"]),
    "ffn_norm": ("post_attention_layernorm", C["hidden"]),
    "attn_q_norm": ("self_attn.query_layernorm", C["hd"]),
    "attn_k_norm": ("self_attn.key_layernorm", C["hd"]),
}


def config() -> dict:
    """As published ones are written."""
    return {
        "architectures": ["HunYuanDenseV1ForCausalLM"], "model_type": "hunyuan_v1_dense", "attention_bias": False,
        "attention_head_dim": C["hd"], "head_dim": C["hd"], "hidden_act": "silu", "hidden_size": C["hidden"],
        "intermediate_size": C["ffn"], "max_position_embeddings": CONTEXT, "mlp_bias": False, "norm_type": "rms",
        "num_attention_heads": C["heads"], "num_hidden_layers": C["layers"], "num_key_value_heads": C["kv"],
        "rms_norm_eps": C["eps"], "rope_theta": C["theta"], "tie_word_embeddings": True, "use_cla": False,
        "rope_scaling": {"alpha": ALPHA, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0,
                         "mscale_all_dim": 0.0, "type": "dynamic"},
        "use_qk_norm": True, "vocab_size": C["vocab"], "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "torch_dtype": "float16",
    }


class Reference:
    """transformers in float64, so that sums in another order change no digit that is kept."""

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()

    def logits(self, ids):
        with torch.no_grad():
            return self.model(torch.from_numpy(np.asarray(ids, np.int64))[None]).logits[0].numpy()


def main() -> None:
    g = rng("hunyuan_tiny")
    folder = out_root() / "families" / "hunyuan" / "tiny"
    hf, gguf = {}, []

    def matrix(name, path, rows, cols, size):
        t, d, s = grouped(g, (rows, cols), 64, size)
        hf[path] = torch.from_numpy((t * s).astype(np.float16))
        gguf.append((name + ".weight", t.shape, Q2_0, q2(t, d, 64)))

    def norm(name, path, size):
        gain = g.uniform(0.5, 1.5, size).astype(np.float16).astype(np.float32)
        hf[path] = torch.from_numpy(gain.astype(np.float16))
        gguf.append((name + ".weight", gain.shape, F32, gain.tobytes()))

    matrix("token_embd", "model.embed_tokens.weight", C["vocab"], C["hidden"], 0.2)
    norm("output_norm", "model.norm.weight", C["hidden"])
    for l in range(C["layers"]):
        for name, (path, rows, cols) in SHAPES.items():
            matrix(f"blk.{l}.{name}", f"model.layers.{l}.{path}.weight", rows, cols, 1.2 / np.sqrt(cols))
        for name, (path, size) in NORMS.items():
            norm(f"blk.{l}.{name}", f"model.layers.{l}.{path}.weight", size)
    write_safetensors(folder / "model.safetensors", hf, {"format": "pt"})
    write_json(folder / "config.json", config())

    # As llama.cpp's converter does: the larger base, and that nothing is scaled.
    base = C["theta"] * ALPHA ** (C["hd"] / (C["hd"] - 2))
    m = keys("hunyuan-dense", C | {"theta": base}, "tiny")
    m |= {"hunyuan-dense.rope.scaling.type": "none", "hunyuan-dense.rope.scaling.factor": 1.0,
          "hunyuan-dense.rope.scaling.original_context_length": CONTEXT}
    m |= {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
    write_gguf(folder / "tiny.Q2_0.gguf", m, gguf)

    reference = Reference(folder)
    assert type(reference.model).__name__ == "HunYuanDenseV1ForCausalLM"
    ids = g.integers(3, C["vocab"], TOKENS)
    logits = reference.logits(ids)
    rope = reference.model.model.rotary_emb
    theta = (1 / base ** (np.arange(0, C["hd"], 2) / C["hd"]))
    assert np.allclose(rope.original_inv_freq.numpy(), theta, rtol=1e-6), "the base grows with alpha"
    out = {"input_ids": ids.astype(np.int64), "logits_f32": logits.astype(np.float32)}
    out |= {"rope.inv_freq": theta.astype(np.float32)}
    out |= {"rope.cos": np.cos(theta).astype(np.float32), "rope.sin": np.sin(theta).astype(np.float32)}
    runs = [(n, *greedy(reference, list(ids[:n]), 8)) for n in range(4, 14)]
    n, chosen, margin = max(runs, key=lambda run: int(np.argmax(np.append(run[2] <= 0.06, True))))
    out |= {"prompt_ids": ids[:n].astype(np.int64), "greedy_f32": np.array(chosen, np.int64)}
    out["greedy_margin"] = margin.astype(np.float32)
    write_safetensors(folder / "expected.safetensors", {k: torch.from_numpy(v) for k, v in out.items()})
    print("hunyuan std", logits.std().round(3), "greedy margins", np.round(margin, 2))


if __name__ == "__main__":
    main()
