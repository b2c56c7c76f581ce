"""Files that a loader must refuse, or decide with care: one small GGUF each, with the reason in refusals.json.

Type ids that name different formats in different programs (36, 38, 39, 40, 42), tile formats that only their build can
read (TL1, TL2), and scales that differ inside one tensor.
"""

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter, quantize

import formats
from common import out_root, rng, write_json
from ggufs import add_config, add_raw, finish
from model64 import Config

CONFIG = Config("refused", hidden=256, ffn=256, layers=1, heads=4, kv_heads=4, vocab=2, tied=True, act="silu",
                sub_norms=False)
ROWS, COLS = 32, 256  # Every file holds one projection of this shape and an embedding, which is enough to refuse.


def write(name: str, arch: str, type_id: int, data: np.ndarray, file_type: int, reason: str) -> dict:
    path = out_root() / "refusals" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, arch)
    add_config(writer, CONFIG, "refusal " + path.stem, file_type)
    writer.add_tokenizer_model("no_vocab")
    writer.add_tensor("token_embd.weight", np.zeros((CONFIG.vocab, CONFIG.hidden), np.float16))
    add_raw(writer, "blk.0.attn_k.weight", data, type_id, (ROWS, COLS))
    finish(writer)
    return {"architecture": arch, "tensor": "blk.0.attn_k.weight", "type": type_id, "shape": [ROWS, COLS],
            "reason": reason}


def main() -> None:
    g = rng("refusals")
    t = g.integers(-1, 2, (ROWS, COLS), dtype=np.int8)
    dense = (t * np.float32(0.5)).astype(np.float32)
    tail = np.frombuffer(np.float32(0.5).tobytes() + bytes(28), np.uint8)
    noise = lambda n: g.integers(0, 256, n, dtype=np.uint8)

    # TL1: M*K/4 bytes; TL2 of M = 32, K = 256 with BK = 96: 192 columns in 5/3 bits, 64 in 2 bits. Then the scale.
    tl1 = np.concatenate([noise(ROWS * COLS // 4), tail])
    tl2 = np.concatenate([noise(192 * ROWS // 6 + 192 * ROWS // 24 + 64 * ROWS // 4), tail])
    mxfp4 = quantize(dense, Q.MXFP4)
    rows_differ = formats.iq2_bn(t, 0.5).copy()
    rows_differ[3, :4] = np.frombuffer(np.float32(0.25).tobytes(), np.uint8)
    blocks_differ = quantize(dense, Q.TQ2_0).copy()
    blocks_differ[3, 64:66] = np.frombuffer(np.float16(0.25).tobytes(), np.uint8)
    code3, nan = formats.i2_s(t, 0.5).copy(), formats.i2_s(t, float("nan"))
    code3[100] |= 0xC0

    files = {
        "tl1.gguf": ("bitnet", formats.TL1, tl1, 38, "TL1: the tiles are known only to the build that wrote them"),
        "tl1-llama.gguf": ("llama", formats.TL1, tl1, 38, "TL1 in a converted Llama model, same type id"),
        "tl2.gguf": ("bitnet-b1.58", formats.TL2, tl2, 39, "TL2: the tiles are known only to the build that wrote them"),
        "mxfp4-llama.gguf": ("llama", 39, mxfp4, 38, "id 39 is MXFP4 in mainline and TL2 in bitnet.cpp; its size tells MXFP4"),
        "id40.gguf": ("bitnet-b1.58", 40, noise(ROWS * COLS // 64 * 36), 39, "id 40 is NVFP4 in mainline, other things in forks"),
        "id40-llama.gguf": ("llama", 40, noise(ROWS * COLS // 64 * 36), 39, "id 40 under llama"),
        "id41.gguf": ("llama", 41, noise(ROWS * COLS // 128 * 18), 40, "id 41 is Q1_0: one bit, not ternary; file_type 40 is not I2_S here"),
        "id42.gguf": ("bitnet-b1.58", 42, noise(tl2.size), 42, "id 42 is Q2_0 in newer sources, TL2 in a newer bitnet.cpp"),
        "id37.gguf": ("bitnet", 37, noise(ROWS * COLS), 40, "I8_S is a runtime type for activations"),
        "id335.gguf": ("bitnet", 335, noise(formats.iq2_bn(t, 0.5).size), 137, "IQ2_BN_R4: rows interleaved by four"),
        "id9999.gguf": ("bitnet", 9999, noise(64), 0, "an unknown type id"),
        "i2_s-gemma.gguf": ("gemma", formats.I2_S, formats.i2_s(t, 0.5), 40, "an architecture that is not ternary"),
        "iq2_bn-rows-differ.gguf": ("bitnet", formats.IQ2_BN, rows_differ, 137, "row 3 has another scale than the other rows: refuse, or keep each row's"),
        "tq2_0-blocks-differ.gguf": ("bitnet", int(Q.TQ2_0), blocks_differ, 37, "row 3 has another scale than the other blocks: refuse, or keep each block's"),
        "i2_s-code3.gguf": ("bitnet", formats.I2_S, code3, 40, "byte 100 holds code 3"),
        "i2_s-nan.gguf": ("bitnet", formats.I2_S, nan, 40, "the scale is NaN"),
        "i2_s-short.gguf": ("bitnet", formats.I2_S, formats.i2_s(t, 0.5)[:-64], 40, "the file ends before the tensor does"),
    }
    entries = {name: write(name, *spec) for name, spec in files.items()}
    write_json(out_root() / "refusals" / "refusals.json", entries)


if __name__ == "__main__":
    main()
