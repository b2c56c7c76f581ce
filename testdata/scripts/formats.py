"""Ternary storage formats in numpy, written from their bit layouts, with golden vectors asserted on import.

`t` is a ternary matrix `[out, in]` of int8 in {-1, 0, 1}; codes are `t + 1`.
No package on PyPI knows I2_S, IQ1_BN or IQ2_BN; TQ1_0 and TQ2_0 come from the `gguf` package instead.
"""

import struct
import zlib

import numpy as np

I2_S, TL1, TL2, IQ1_BN, IQ2_BN = 36, 38, 39, 134, 135


def hf_pack(t: np.ndarray) -> np.ndarray:
    """Hugging Face packing: byte (r, c) holds rows r, R+r, 2R+r, 3R+r at bits 0, 2, 4, 6; R = ceil(out/4)."""
    rows = -(-t.shape[0] // 4)
    packed = np.zeros((rows, t.shape[1]), np.uint8)
    for i in range(4):
        part = (t[i * rows : (i + 1) * rows] + 1).astype(np.uint8)
        packed[: len(part)] |= part << (2 * i)
    return packed


def i2_s(t: np.ndarray, alpha: float) -> np.ndarray:
    """I2_S: 128 flattened elements in 32 bytes, element 128b+32g+p in byte 32b+p at bits 6-2g; f32 scale, 28 zero bytes."""
    assert t.shape[1] % 128 == 0
    codes = (t.reshape(-1, 4, 32) + 1).astype(np.uint8)
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    tail = struct.pack("<f", alpha) + bytes(28)
    return np.concatenate([packed.ravel(), np.frombuffer(tail, np.uint8)])


def _base3_byte(trits: list[np.ndarray]) -> np.ndarray:
    """ceil(256 * v / 243) for v = sum of trit_j * 3^j, the first trit least significant."""
    v = sum(trit.astype(np.uint32) * 3**j for j, trit in enumerate(trits))
    return ((256 * v + 242) // 243).astype(np.uint8)


def _row_scales(t: np.ndarray, alpha: float, dtype) -> np.ndarray:
    """The largest absolute value of each row, which is 0 for a row of zeros."""
    return (np.abs(t).max(axis=1, keepdims=True) * alpha).astype(dtype).view(np.uint8)


def _as_quantised(t: np.ndarray) -> np.ndarray:
    """The codes that the format's own quantiser writes: a value is zero if |x| < rowmax / 2, else 2 (or 0 if negative).
    In a row of zeros nothing is below rowmax / 2 = 0, so all its codes are 2, and its scale is 0."""
    return np.where((t == 0).all(axis=1, keepdims=True), np.int8(1), t)


def iq1_bn_blocks(t: np.ndarray) -> np.ndarray:
    """13 bytes for each 64 elements of a row: 12 bytes of five trits, then one byte with the 16th of each sixteen."""
    x = (_as_quantised(t) + 1).reshape(t.shape[0], -1, 4, 16)
    blocks = np.zeros((*x.shape[:2], 13), np.uint8)
    for i in range(4):
        for k in range(3):
            blocks[..., 3 * i + k] = _base3_byte([x[..., i, 5 * k + j] for j in range(5)])
    blocks[..., 12] = _base3_byte([x[..., i, 15] for i in range(4)])
    return blocks.reshape(t.shape[0], -1)


def iq2_bn_blocks(t: np.ndarray) -> np.ndarray:
    """16 bytes for each 64 elements of a row: byte j holds elements j, j+16, j+32, j+48 at bits 0, 2, 4, 6."""
    x = (_as_quantised(t) + 1).astype(np.uint8).reshape(t.shape[0], -1, 4, 16)
    return (x[..., 0, :] | x[..., 1, :] << 2 | x[..., 2, :] << 4 | x[..., 3, :] << 6).reshape(t.shape[0], -1)


def iq1_bn(t: np.ndarray, alpha: float) -> np.ndarray:
    """IQ1_BN: each row is an f16 scale and its 13-byte blocks."""
    return np.concatenate([_row_scales(t, alpha, np.float16), iq1_bn_blocks(t)], axis=1)


def iq2_bn(t: np.ndarray, alpha: float) -> np.ndarray:
    """IQ2_BN: each row is an f32 scale and its 16-byte blocks."""
    return np.concatenate([_row_scales(t, alpha, np.float32), iq2_bn_blocks(t)], axis=1)


def permute_norm(t: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k from the half-rotation order to the interleaved one, within each head: half row i goes to 2i,
    half row i + d/2 to 2i+1. This is what converters do for architecture `llama`."""
    d = t.shape[0] // heads
    return t.reshape(heads, 2, d // 2, t.shape[1]).swapaxes(1, 2).reshape(t.shape)


def golden_matrix(rows: int, cols: int) -> np.ndarray:
    r, c = np.arange(rows)[:, None], np.arange(cols)[None, :]
    return ((((7 * r + 5 * c + c // 4 * (r + 1) + c * c // 11) % 3) - 1)).astype(np.int8)


def _check() -> None:
    from gguf import GGMLQuantizationType, dequantize, quantize

    t = golden_matrix(4, 128)
    assert t[0, :12].tolist() == [-1, 1, 0, -1, 0, 0, 0, 0, 1, -1, 0, 1]
    assert t[1, :12].tolist() == [0, -1, 1, 0, -1, -1, -1, -1, 1, -1, 0, 1]

    def same(data: np.ndarray, head: str, crc: str | None) -> None:
        data = data.tobytes()
        assert data[: len(head) // 2].hex() == head, (data[:16].hex(), head)
        assert crc is None or zlib.crc32(data) == int(crc, 16), (hex(zlib.crc32(data)), crc)

    same(i2_s(t, 1.5), "00aa5500404a494992126286618618a1", "47899636")
    same(hf_pack(t), "2492492461616161aa0055aa49922492", "48d54152")
    same(iq1_bn_blocks(t[:1, :64]), "66474a3f726b10726be91ccb16", None)
    # Columns 4 to 7 hold the same four codes (1, 0, 0, 2), so bytes 4 to 7 are equal.
    same(iq2_bn_blocks(t[:1, :64]), "88661188818181811614294229429422", None)
    flat = t[:2].reshape(1, 256).astype(np.float32) * 1.5
    tq2, tq1 = (quantize(flat, q) for q in (GGMLQuantizationType.TQ2_0, GGMLQuantizationType.TQ1_0))
    same(tq2[0, :64], "00aa550001a16161868489924992244a", "80d5ffc9")
    same(tq1[0, :52], "02fd8102566f6c6cd02396bd94bb31e7", "5938784b")
    assert (dequantize(tq2, GGMLQuantizationType.TQ2_0) == flat).all()

    # The base-3 bytes decode as described: multiply by 3^(4-j), keep 8 bits, times 3, high byte.
    for v in range(243):
        trits = [np.array(v // 3**j % 3) for j in range(5)]
        byte = int(_base3_byte(trits))
        assert [((byte * 3 ** (4 - j)) % 256 * 3) >> 8 for j in range(5)] == [int(x) for x in trits]


_check()
