"""BitNet checkpoints in other spellings, and IQ1_BN/IQ2_BN files of `sharded_tiny`.

`merged_tiny`: q, k, v in one `qkv_proj`, gate and up in one `gate_up_proj`, as master weights and packed.
`onebit_tiny`: the names and config of 1bitLLM/bitnet_b1_58-*, master weights only.
Both are run by transformers' BitNet after splitting or renaming the tensors.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

import case_sharded
from common import bf16, out_root, tensor, write_safetensors
from formats import hf_pack
from ggufs import write_model
from hf import BF16, config_json, expected, master_tensors, packed_tensors, write_checkpoint
from manifest import record
from model64 import MARGIN, Config, Model, Stepper, absmean, find_ids, random_master

ONLINE = {"linear_class": "autobitlinear", "quantization_mode": "online"}
OFFLINE = {"linear_class": "autobitlinear", "quantization_mode": "offline"}
MERGED = Config("merged_tiny", hidden=48, ffn=80, layers=2, heads=4, kv_heads=1, vocab=96, tied=False, act="relu2",
                sub_norms=True)
ONEBIT = Config("onebit_tiny", hidden=48, ffn=80, layers=2, heads=4, kv_heads=4, vocab=96, tied=True, act="silu",
                sub_norms=True, theta=10000.0)
GROUPS = {
    "self_attn.qkv_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "mlp.gate_up_proj": ["mlp.gate_proj", "mlp.up_proj"],
}


def build(c: Config, length: int, **search) -> tuple[Model, Model, dict, list[int]]:
    """The model with exact scales (master), the one with bf16 scales (packed), master weights, and ids for both."""
    for seed in range(1000):
        exact, master = random_master(c, seed)
        rounded = Model(c, exact.embed, exact.head, exact.norms, exact.t)
        try:
            for name, w in master.items():
                exact.t[name], exact.alpha[name] = absmean(w)
                rounded.alpha[name] = float(bf16(np.array([exact.alpha[name]]))[0])
        except ValueError:
            continue
        other = Stepper(rounded)
        ids = find_ids(exact, length, allowed=lambda ids: other.least_margin(ids) >= MARGIN, **search)
        if ids is not None:
            return exact, rounded, master, ids
    raise RuntimeError("no seed found")


def merge(tensors: dict, layers: int, parts) -> dict:
    """Replaces the tensors of each group by `parts(layer, members)`."""
    out = dict(tensors)
    for i in range(layers):
        for group, members in GROUPS.items():
            for member in members:
                for suffix in ("weight", "weight_scale"):
                    out.pop(f"model.layers.{i}.{member}.{suffix}", None)
            out.update({f"model.layers.{i}.{group}.{k}": v for k, v in parts(i, members).items()})
    return out


def merged() -> None:
    exact, rounded, master, ids = build(MERGED, 5)
    folder = out_root() / "bitnet" / MERGED.name

    def master_part(i, members):
        return {"weight": tensor(np.concatenate([master[f"layers.{i}.{n}"] for n in members]), BF16)}

    def packed_part(i, members):
        names = [f"layers.{i}.{n}" for n in members]
        return {
            "weight": tensor(hf_pack(np.concatenate([rounded.t[n] for n in names])), torch.uint8),
            "weight_scale": tensor(np.array([rounded.alpha[n] for n in names]), BF16),
        }

    split_master, split_packed = master_tensors(exact, master), packed_tensors(rounded, rounded.alpha.get)
    layers = MERGED.layers
    write_checkpoint(folder / "master", config_json(MERGED, ONLINE), merge(split_master, layers, master_part))
    write_checkpoint(folder / "packed", config_json(MERGED, OFFLINE), merge(split_packed, layers, packed_part))
    with tempfile.TemporaryDirectory() as temp:
        temp = Path(temp)
        write_checkpoint(temp / "master", config_json(MERGED, ONLINE), split_master)
        write_checkpoint(temp / "packed", config_json(MERGED, OFFLINE), split_packed)
        tensors = expected(temp / "packed", "packed", rounded, ids, tag="merged_tiny/packed, split")
        tensors.update(
            expected(temp / "master", "master", exact, ids, with_trace=False, tag="merged_tiny/master, split")
        )
    write_safetensors(folder / "expected.safetensors", tensors)


def onebit() -> None:
    exact, _, master, ids = build(ONEBIT, 5, distinct=5)
    folder = out_root() / "bitnet" / ONEBIT.name
    tensors = master_tensors(exact, master)
    renamed = {
        n.replace("self_attn.attn_sub_norm", "self_attn.inner_attn_ln").replace("ffn_sub_norm", "ffn_layernorm"): t
        for n, t in tensors.items()
    }
    config = config_json(
        ONEBIT,
        None,
        architectures=["BitnetForCausalLM"],
        model_type="llama",
        max_position_embeddings=2048,
        pad_token_id=0,
        pretraining_tp=1,
        rope_scaling=None,
        weight_bits=1,
        input_bits=8,
    )
    write_checkpoint(folder / "master", config, renamed)
    with tempfile.TemporaryDirectory() as temp:
        temp = Path(temp)
        write_checkpoint(temp / "master", config_json(ONEBIT, ONLINE), tensors)
        found = expected(temp / "master", "master", exact, ids, tag="onebit_tiny/master, renamed")
    write_safetensors(folder / "expected.safetensors", found)


def iq_files() -> None:
    m, _ = case_sharded.build()
    for kind in ("IQ1_BN", "IQ2_BN"):
        record(out_root(), f"sharded_tiny.{kind}.gguf", lambda p: write_model(p, m, "bitnet-b1.58", kind))


def main() -> None:
    merged()
    onebit()
    iq_files()


if __name__ == "__main__":
    main()
