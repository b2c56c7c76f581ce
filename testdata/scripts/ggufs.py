"""GGUF files of ternary models, through the PyPI `gguf` package's writer."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFReader, GGUFWriter, dequantize, quantize

import formats
from common import bf16
from model64 import Config, Model

FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7, "TQ1_0": 36, "TQ2_0": 37, "I2_S": 40, "IQ1_BN": 136, "IQ2_BN": 137}
TENSORS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tensor_name(name: str) -> str:
    """`layers.0.mlp.up_proj` -> `blk.0.ffn_up.weight`."""
    if name == "norm":
        return "output_norm.weight"
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{TENSORS[rest]}.weight"


def add_raw(writer: GGUFWriter, name: str, data: np.ndarray, type_id: int, shape: tuple[int, ...]) -> None:
    """A tensor of any type id: the writer only looks at the id when the data are uint8, so they go in as int8."""
    writer.add_tensor(name, np.ascontiguousarray(data).view(np.int8), raw_shape=shape, raw_dtype=type_id)


def add_ternary(writer: GGUFWriter, name: str, t: np.ndarray, alpha: float, kind: str) -> None:
    dense = (t * np.float32(alpha)).astype(np.float32)
    if kind == "I2_S":
        add_raw(writer, name, formats.i2_s(t, alpha), formats.I2_S, t.shape)
    elif kind == "IQ1_BN":
        add_raw(writer, name, formats.iq1_bn(t, alpha), formats.IQ1_BN, t.shape)
    elif kind == "IQ2_BN":
        add_raw(writer, name, formats.iq2_bn(t, alpha), formats.IQ2_BN, t.shape)
    elif kind == "F16":
        half = dense.astype(np.float16)
        assert (half == dense).all(), "the scale is not exact in f16"
        writer.add_tensor(name, half)
    else:
        data = quantize(dense, Q[kind])
        assert (dequantize(data, Q[kind]) == dense).all(), "not exact in " + kind
        writer.add_tensor(name, data, raw_dtype=Q[kind])


def add_dense(writer: GGUFWriter, name: str, value: np.ndarray, kind: str) -> None:
    """An embedding or head in F32, F16, BF16 (exact) or quantised bytes (uint8 array with `kind` naming the type)."""
    if kind == "F32":
        writer.add_tensor(name, value.astype(np.float32))
    elif kind == "F16":
        half = value.astype(np.float16)
        assert (half == value).all(), "not exact in f16"
        writer.add_tensor(name, half)
    elif kind == "BF16":
        assert (bf16(value) == value).all()
        writer.add_tensor(name, quantize(value, Q.BF16), raw_dtype=Q.BF16)
    else:
        assert value.dtype == np.uint8
        writer.add_tensor(name, value, raw_dtype=Q[kind])


def add_config(writer: GGUFWriter, c: Config, title: str, file_type: int) -> None:
    writer.add_name(title)
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_vocab_size(c.vocab)
    writer.add_context_length(4096)
    writer.add_embedding_length(c.hidden)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.ffn)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_layer_norm_rms_eps(c.eps)
    writer.add_rope_freq_base(c.theta)
    writer.add_rope_dimension_count(c.hd)
    if c.head_dim:
        writer.add_key_length(c.hd)
        writer.add_value_length(c.hd)


def write_model(
    path: Path,
    m: Model,
    arch: str,
    kind: str,
    permuted: bool = False,
    vocabulary=None,
    embed: tuple[np.ndarray, str] | None = None,
    head: tuple[np.ndarray, str] | None = None,
    title: str | None = None,
) -> dict:
    """Writes one file and returns its manifest entry. `vocabulary(writer)` adds a tokenizer, else there is none.

    `permuted` reorders the rows of q and k for interleaved RoPE, as converters do for architecture `llama`.
    `embed` and `head` replace the F16 embedding and head by other bytes and their type.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    c, writer = m.config, GGUFWriter(path, arch)
    add_config(writer, c, title or "reference " + c.name, FILE_TYPES[kind])
    if vocabulary is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        vocabulary(writer)
    add_dense(writer, "token_embd.weight", *(embed or (m.embed, "F16")))
    for name, value in m.norms.items():
        writer.add_tensor(tensor_name(name), value.astype(np.float32))
    for name, t in m.t.items():
        heads = {"q_proj": c.heads, "k_proj": c.kv_heads}.get(name.split(".")[-1])
        if permuted and heads is not None:
            t = formats.permute_norm(t, heads)
        add_ternary(writer, tensor_name(name), t, m.alpha[name], kind)
    if not c.tied:
        add_dense(writer, "output.weight", *(head or (m.head, "F16")))
    types = {n: getattr(i.dtype, "name", str(int(i.dtype))) for n, i in writer.tensors[0].items()}
    finish(writer)
    if all(t in Q.__members__ for t in types.values()):
        read = {t.name: t.tensor_type.name for t in GGUFReader(path).tensors}
        assert read == types, (read, types)
    return {
        "case": c.name,
        "architecture": arch,
        "ternary": kind,
        "q_k_rows": "interleaved" if permuted else "half",
        "embedding": types["token_embd.weight"],
        "head": types.get("output.weight", "tied"),
    }


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
