"""Checkpoint folders in the layout of the Hugging Face hub, and runs of transformers on them in float32."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from common import tensor, write_json, write_safetensors
from formats import hf_pack
from model64 import PROJECTIONS, Config, Model, Stepper, clear_steps

transformers_logging.disable_progress_bar()

GREEDY = 32
BF16 = torch.bfloat16


def config_json(c: Config, quantization: dict | None, **extra) -> dict:
    """config.json of a BitNet (sub-norms) or Llama checkpoint; `extra` adds or replaces keys, `...` removes one."""
    bitnet = c.sub_norms
    value = {
        "architectures": ["BitNetForCausalLM" if bitnet else "LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": c.act,
        "hidden_size": c.hidden,
        "initializer_range": 0.02,
        "intermediate_size": c.ffn,
        "max_position_embeddings": 4096,
        "model_type": "bitnet" if bitnet else "llama",
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.kv_heads,
        "rms_norm_eps": c.eps,
        "rope_theta": c.theta,
        "tie_word_embeddings": c.tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": c.vocab,
    }
    if c.head_dim:
        value["head_dim"] = c.head_dim
    if quantization is not None:
        value["quantization_config"] = {"quant_method": "bitnet", **quantization}
    value.update(extra)
    return {k: v for k, v in value.items() if v is not ...}


def dense_tensors(m: Model, embed_dtype: torch.dtype = BF16) -> dict[str, torch.Tensor]:
    """Embeddings and head in `embed_dtype`, norms in bf16."""
    tensors = {"model.embed_tokens.weight": tensor(m.embed, embed_dtype)}
    if not m.config.tied:
        tensors["lm_head.weight"] = tensor(m.head, embed_dtype)
    for name, value in m.norms.items():
        tensors[f"model.{name}.weight"] = tensor(value, BF16)
    return tensors


def packed_tensors(m: Model, scale, scale_dtype: torch.dtype = BF16, embed_dtype: torch.dtype = BF16) -> dict:
    """Packed uint8 projections; `scale(name)` is the stored weight_scale."""
    tensors = dense_tensors(m, embed_dtype)
    for name, t in m.t.items():
        tensors[f"model.{name}.weight"] = tensor(hf_pack(t), torch.uint8)
        tensors[f"model.{name}.weight_scale"] = tensor(np.array([scale(name)]), scale_dtype)
    return tensors


def master_tensors(m: Model, master: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    tensors = dense_tensors(m)
    tensors.update({f"model.{name}.weight": tensor(w, BF16) for name, w in master.items()})
    return tensors


def write_checkpoint(folder: Path, config: dict, tensors: dict[str, torch.Tensor], shards: int = 1) -> None:
    """config.json and model.safetensors, or `shards` files with an index; neighbours in name order share a file."""
    write_json(folder / "config.json", config, indent=2)
    meta = {"format": "pt"}
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, meta)
        return
    names = sorted(tensors)
    total = sum(t.nbytes for t in tensors.values())
    parts, used = [[] for _ in range(shards)], 0
    for name in names:
        parts[min(used * shards // total, shards - 1)].append(name)
        used += tensors[name].nbytes
    weight_map = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / file, {n: tensors[n] for n in part}, meta)
        weight_map.update({n: file for n in part})
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index, indent=2)


def load(folder: Path, attention: str = "eager"):
    """The checkpoint in transformers, everything upcast to float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    # transformers refuses `.float()` on quantised models, but loads their embeddings and norms in the stored bf16.
    torch.nn.Module.float(model).eval()
    for module in model.modules():
        if type(module).__name__ == "BitLinear":
            assert module.weight.dtype == torch.uint8
            module.dtype = torch.float32
    return model


@torch.no_grad()
def full_logits(model, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids]), use_cache=False).logits[0]


@torch.no_grad()
def greedy(model, ids: list[int], n: int = GREEDY) -> tuple[np.ndarray, np.ndarray]:
    """`n` argmax ids and the gap between the two largest logits at each step."""
    ids, out, margins = list(ids), [], []
    for _ in range(n):
        top = full_logits(model, ids)[-1].topk(2)
        out.append(int(top.indices[0]))
        margins.append(float(top.values[0] - top.values[1]))
        ids.append(out[-1])
    return np.array(out, np.int64), np.array(margins, np.float32)


@torch.no_grad()
def cached_logits(model, ids: list[int]) -> torch.Tensor:
    rows, cache = [], None
    for token in ids:
        out = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0, 0])
    return torch.stack(rows)


@torch.no_grad()
def trace(model, ids: list[int]) -> dict[str, torch.Tensor]:
    """Outputs of the sub-modules of the first and last layer. Where no module's output is the input of o_proj or
    down_proj (no sub-norms), that input is recorded as `<module>.in`."""
    base, found, hooks = model.model, {}, []

    def keep(key):
        def hook(_module, _inputs, output):
            found[key] = (output[0] if isinstance(output, tuple) else output)[0].clone().contiguous()

        return hook

    def keep_input(key):
        def hook(_module, inputs):
            found[key] = inputs[0][0].clone().contiguous()

        return hook

    hooks.append(base.embed_tokens.register_forward_hook(keep("trace.embed")))
    hooks.append(base.norm.register_forward_hook(keep("trace.final_norm")))
    last = len(base.layers) - 1
    for i, layer in enumerate(base.layers):
        hooks.append(layer.register_forward_hook(keep(f"trace.layer{i}.out")))
        if i not in (0, last):
            continue
        modules = dict(layer.named_modules())
        sub_norms = "mlp.ffn_sub_norm" in modules
        norms = ["input_layernorm", "post_attention_layernorm"]
        norms += ["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"] if sub_norms else []
        for name in norms + PROJECTIONS:
            hooks.append(modules[name].register_forward_hook(keep(f"trace.layer{i}.{name}")))
            if not sub_norms and name in ("self_attn.o_proj", "mlp.down_proj"):
                hooks.append(modules[name].register_forward_pre_hook(keep_input(f"trace.layer{i}.{name}.in")))
    full_logits(model, ids)
    for hook in hooks:
        hook.remove()
    return found


def expected(folder: Path, form: str, m: Model, ids: list[int], with_trace: bool = True, tag: str = "") -> dict:
    """Tensors for expected.safetensors from the checkpoint in `folder`; `form` is "packed" or "master".

    Refuses to return anything unless transformers eager, sdpa and cached and the float64 model agree.
    """
    model = load(folder)
    logits = full_logits(model, ids)
    ids32, margins = greedy(model, ids)
    reference = Stepper(m)
    differences = {
        "float64": float(np.abs(logits.numpy() - reference.logits(ids)).max()),
        "cached": float((cached_logits(model, ids) - logits).abs().max()),
        "sdpa": float((full_logits(load(folder, "sdpa"), ids) - logits).abs().max()),
    }
    ids64, gaps = reference.greedy(ids, GREEDY)
    agree = clear_steps([0.0 if a != b else 1.0 for a, b in zip(ids32, ids64)])
    clear = clear_steps(gaps)
    assert agree >= clear, f"greedy ids differ from float64 at step {agree}"
    near = reference.least_margin(ids)
    notes = " ".join(f"{k} {v:.1e}" for k, v in differences.items())
    print(f"  {tag or folder.parent.name + '/' + folder.name}: std {logits.std():.2f} {notes}, least margin {near:.1e}, "
          f"greedy steps equal {agree}, clear {clear}")
    assert max(differences.values()) < 2e-5, differences
    tensors = {
        "input_ids": torch.tensor(ids),
        "prompt_ids": torch.tensor(ids),
        f"logits_{form}_f32": logits,
        f"greedy_{form}": torch.from_numpy(ids32),
        f"greedy_{form}_margin": torch.from_numpy(margins),
    }
    if with_trace:
        tensors.update(trace(model, ids))
    return tensors


def read_config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors
