"""extractor/ and extractor_recurrent/: tiny extractors and what a separate float64 model makes of some texts; the layers of the second are
TTT-Linear, with inner steps token by token, and the gated delta rule.

Words, features, encoder, heads and the best sequence of tags are written here from docs/extract.md, with numpy and Python's own Unicode
tables; no code and no tables are shared with the Rust side. Seeds are tried until no int8 code lies near a rounding boundary, so that float32
has the same codes and what remains is rounding.

    python testdata/scripts/case_extractor.py        # writes testdata/extractor and testdata/extractor_recurrent
"""

import itertools
import json
import os
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np

f16, f32 = np.float16, np.float32
# Distance that every int8 code keeps from a rounding boundary.
CLEAR = 2e-4
CONFIG = {
    "model_type": "bitnet-extractor", "format": 2, "buckets": 64, "runs": True, "reach": 2, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 64, "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
    "tasks": [
        {"name": "home", "intents": ["light_on", "light_off", "other"], "slots": ["room", "time"],
         "intent_slots": [[0, 1], [0], []], "oos": {"score": "energy", "threshold": 0.25}, "temperature": 1.5},
        {"name": "topic", "intents": ["a", "b"], "slots": [], "temperature": 1.0},
    ],
}
# `mixer` is not said where all layers are attention.
MIXERS = ["ttt_linear", "gated_delta"]
DIRECTIONS = ["forward", "backward"]
LONG = "play the long version of that song again and then one more time from the start until everybody sings along with us"
TEXTS = ["switch on teh light in Kim's kitchen, at 7pm", "青空文庫って知ってる?", "ＯＫ ﾎﾞｰﾙ", "l’e\u0301te\u0301 — it’S o'clock!"]


def root() -> Path:
    name = "extractor_recurrent" if "mixer" in CONFIG else "extractor"
    return Path(os.environ.get("TESTDATA_OUT", Path(__file__).resolve().parent.parent)) / name


def mixer(i: int) -> str:
    return CONFIG["mixer"][i] if "mixer" in CONFIG else "attention"


# ---- words and features

def kind(c: str) -> str:
    category, name = unicodedata.category(c), unicodedata.name(c, "")
    if category in ("Zs", "Cc", "Cf"):
        return "space"
    if category[0] == "M" or "VOICED SOUND MARK" in name:
        return "mark"
    if c in "'\u2019":
        return "apostrophe"
    if name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA")):
        return "character"
    return "letter" if category[0] in "LN" else "sign"


def possessive(after: str) -> bool:
    return after[:1] in ("s", "S") and all(kind(c) not in ("letter", "mark") for c in after[1:])


def split(text: str) -> list:
    """Pairs of a kind and the position of each character, [kind, start, end]."""
    words, joins, skip = [], False, False
    for i, c in enumerate(text):
        k = kind(c)
        if skip:
            # The s behind an apostrophe.
            skip = False
        elif k == "space":
            joins = False
        elif k == "mark" and words and words[-1][2] == i:
            words[-1][2] = i + 1
        elif k == "letter" and joins:
            words[-1][2] = i + 1
        elif k == "apostrophe" and joins and possessive(text[i + 1:i + 3]):
            words.append(["letter", i, i + 2])
            joins, skip = False, True
        elif k == "apostrophe" and joins and i + 1 < len(text) and kind(text[i + 1]) == "letter":
            pass
        else:
            words.append([k, i, i + 1])
            joins = k == "letter"
    return words


def straight(word: str) -> str:
    return word.replace("\u2019", "'").replace("\u02bc", "'")


def fold(word: str) -> str:
    return straight(unicodedata.normalize("NFKC", word)).lower()[:32]


def shape(word: str) -> str:
    def one(c: str) -> str:
        name = unicodedata.name(c, "")
        for start, letter in (("CJK", "H"), ("HIRAGANA", "h"), ("KATAKANA", "k")):
            if name.startswith(start):
                return letter
        return {"Lu": "X", "Ll": "x", "Nd": "0"}.get(unicodedata.category(c), "o" if c.isalpha() else ".")
    marked = straight(unicodedata.normalize("NFKD", word))
    kinds = [one(c) for c in marked if unicodedata.category(c)[0] != "M"]
    return "".join(k * min(4, len(list(run))) for k, run in itertools.groupby(kinds))


def bucket(letter: str, text: str) -> int:
    h = 0x811C9DC5
    for b in (letter + text).encode():
        h = (h ^ b) * 0x01000193 & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ h >> shift) * factor & 0xFFFFFFFF
    return h % CONFIG["buckets"]


def features(text: str, words: list, i: int) -> list:
    folded = [fold(text[start:end]) for _, start, end in words]
    k, start, end = words[i]
    found = [bucket("w", folded[i]), bucket("s", shape(text[start:end]))]
    if k != "character":
        for distance in range(1, CONFIG["reach"] + 1):
            before = folded[i - distance] if i >= distance else "<"
            after = folded[i + distance] if i + distance < len(words) else ">"
            left, right = ("p", "q") if distance == 1 else ("P", "Q")
            found += [bucket(left, f"{before} {folded[i]}"), bucket(right, f"{folded[i]} {after}")]
    if k == "letter":
        marked = f"<{folded[i]}>"
        found += [bucket("n", marked[j:j + n]) for n in (3, 4, 5, 2) for j in range(len(marked) - n + 1)]
    if k == "character":
        left = folded[i - 1][-1] if i else "<"
        right = folded[i + 1][0] if i + 1 < len(words) else ">"
        found += [bucket("l", left + folded[i]), bucket("r", folded[i] + right), bucket("b", left + folded[i] + right)]
    return found[:64]


# ---- the model

def weights(seed: int) -> dict:
    rng = np.random.default_rng([zlib.crc32(b"extractor"), seed])
    h, f, b = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["buckets"]
    w = {
        "features.weight": rng.integers(-127, 128, (b, h)).astype(np.int8),
        "features.scale": rng.uniform(0.008, 0.024, b).astype(f16).astype(f32),
        "output_norm.weight": rng.uniform(0.75, 1.25, h).astype(f32),
    }
    shapes = {"attn_q": (h, h), "attn_k": (h, h), "attn_v": (h, h), "attn_output": (h, h), "ffn_gate": (f, h), "ffn_up": (f, h),
              "ffn_down": (h, f)}
    a = CONFIG["num_attention_heads"]
    d = h // a
    around = lambda mean, half, *shape: rng.uniform(mean - half, mean + half, shape).astype(f32)
    for i in range(CONFIG["num_hidden_layers"]):
        own = dict(shapes)
        if mixer(i) != "attention":
            own["attn_gate"] = (h, h)
        if mixer(i) == "ttt_linear":
            del own["attn_k"]
        for name, size in {"attn_norm": h, "attn_sub_norm": h, "ffn_norm": h, "ffn_sub_norm": f}.items():
            w[f"blk.{i}.{name}.weight"] = rng.uniform(0.75, 1.25, size).astype(f32)
        for direction in DIRECTIONS if mixer(i) == "ttt_linear" else []:
            tensors = {
                "ttt_w1.weight": around(0, 0.3, a, d, d), "ttt_w1.bias": around(0, 0.3, a, 1, d),
                "ttt_lr.weight": around(0, 0.3, a, 1, h), "ttt_lr.bias": around(2, 1, a, 1), "ttt_token_idx": around(0, 0.2, 16),
                "ttt_inner_norm.weight": around(1, 0.25, a, d), "ttt_inner_norm.bias": around(0, 0.25, a, d),
                "ttt_post_norm.weight": around(1, 0.25, h), "ttt_post_norm.bias": around(0, 0.25, h),
                "ttt_conv_q.weight": around(0.2, 0.5, h, 1, 4), "ttt_conv_q.bias": around(0, 0.2, h),
                "ttt_conv_k.weight": around(0.2, 0.5, h, 1, 4), "ttt_conv_k.bias": around(0, 0.2, h),
            }
            w |= {f"blk.{i}.{direction}.{name}": x for name, x in tensors.items()}
        for direction in DIRECTIONS if mixer(i) == "gated_delta" else []:
            tensors = {
                "ssm_alpha.weight": around(0, 0.3, a, h), "ssm_beta.weight": around(0, 0.3, a, h),
                "ssm_conv1d.weight": around(0.2, 0.5, 3 * h, 4), "ssm_a": around(-0.5, 0.4, a), "ssm_dt.bias": around(-1, 1, a),
                "ssm_norm.weight": around(1, 0.25, d),
            }
            w |= {f"blk.{i}.{direction}.{name}": x for name, x in tensors.items()}
        for name, size in own.items():
            w[f"blk.{i}.{name}.weight"] = rng.integers(-1, 2, size)
            w[f"blk.{i}.{name}.weight_scale"] = np.array([np.sqrt(1.5 / size[1])], f32)
    for t in CONFIG["tasks"]:
        n, tags = len(t["intents"]), 1 + 2 * len(t["slots"])
        w[f"task.{t['name']}.intent.weight"] = rng.uniform(-0.2, 0.2, (n, 3 * h)).astype(f32)
        w[f"task.{t['name']}.intent.bias"] = rng.uniform(-0.2, 0.2, n).astype(f32)
        if t["slots"]:
            w[f"task.{t['name']}.tags.weight"] = rng.uniform(-0.3, 0.3, (tags, 2 * h)).astype(f32)
            w[f"task.{t['name']}.tags.bias"] = rng.uniform(-0.3, 0.3, tags).astype(f32)
            w[f"task.{t['name']}.transitions"] = rng.uniform(-1, 1, (tags + 2, tags)).astype(f32)
    return w


class TooNear(Exception):
    """A code so near to a rounding boundary that float32 may round it the other way."""


def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + CONFIG["rms_norm_eps"]) * gain


def product(w: dict, name: str, x: np.ndarray) -> np.ndarray:
    """Int8 codes by the largest value of a row, ternary weights, both scales."""
    scale = 127 / np.maximum(np.abs(x).max(-1, keepdims=True), 1e-5)
    exact = x * scale
    codes = np.round(exact)
    if (0.5 - np.abs(exact - codes)).min() < CLEAR:
        raise TooNear
    return codes @ w[f"{name}.weight"].T.astype(float) / scale * float(w[f"{name}.weight_scale"][0])


def turned(x: np.ndarray) -> np.ndarray:
    """Rotary embedding of `[n, heads, d]`, halves of a head in pairs."""
    n, _, d = x.shape
    angle = np.arange(n)[:, None] / CONFIG["rope_theta"] ** (np.arange(0, d, 2) / d)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., : d // 2], x[..., d // 2:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def causal(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """`[n, channels]` with `[channels, taps]`, the last tap at the row itself."""
    n, k = len(x), taps.shape[-1]
    padded = np.concatenate([np.zeros((k - 1, x.shape[1])), x])
    return sum(padded[j:j + n] * taps[:, j] for j in range(k))


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + CONFIG["rms_norm_eps"]) * gain + bias


def ttt_linear(w: dict, y: np.ndarray, qk: np.ndarray, v: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """One direction: `f(x) = x + LN(x W + b)` of each head takes a step towards `f(key) = value` at every word. `w` are its tensors."""
    n, a = len(y), CONFIG["num_attention_heads"]
    q, k = (causal(qk, w[f"ttt_conv_{c}.weight"][:, 0]) + w[f"ttt_conv_{c}.bias"] for c in "qk")
    place = [i % 16 for i in range(n)]
    q, k = (np.concatenate([turned(x.reshape(n, a, -1)[s:s + 16]) for s in range(0, n, 16)]) for x in (q, k))
    v, d = v.reshape(n, a, -1), qk.shape[1] // a
    found = np.zeros((n, a, d))
    for head in range(a):
        weight, bias = w["ttt_w1.weight"][head].astype(float), w["ttt_w1.bias"][head, 0].astype(float)
        gain, shift = w["ttt_inner_norm.weight"][head].astype(float), w["ttt_inner_norm.bias"][head].astype(float)
        rate = 1 / d / (1 + np.exp(-(y @ w["ttt_lr.weight"][head, 0].astype(float) + w["ttt_lr.bias"][head, 0])))
        for i in range(n):
            if place[i] == 0:
                dw, db = np.zeros((d, d)), np.zeros(d)
            # The gradient of |f(k) - v|^2 / 2 with respect to k W + b, at the weights of the beginning of the mini-batch.
            z = k[i, head] @ weight + bias
            centred = z - z.mean()
            deviation = np.sqrt((centred * centred).mean() + CONFIG["rms_norm_eps"])
            unit = centred / deviation
            g = (k[i, head] + unit * gain + shift - v[i, head]) * gain
            g = (g - g.mean() - unit * (g * unit).mean()) / deviation
            dw, db = dw + rate[i] * np.outer(k[i, head], g), db + rate[i] * g
            t = max(0.0, 1 / (place[i] + 1) + float(w["ttt_token_idx"][place[i]]))
            z = q[i, head] @ (weight - t * dw) + bias - t * db
            found[i, head] = q[i, head] + layer_norm(z, gain, shift)
            if place[i] == 15:
                weight, bias = weight - t * dw, bias - t * db
    out = layer_norm(found.reshape(n, -1), w["ttt_post_norm.weight"].astype(float), w["ttt_post_norm.bias"].astype(float))
    return out * gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))


def gated_delta(w: dict, y: np.ndarray, qkv: np.ndarray, z: np.ndarray) -> np.ndarray:
    """One direction: a matrix of each head fades and is corrected at every word. `w` are its tensors."""
    n, a = len(y), CONFIG["num_attention_heads"]
    d = z.shape[1] // a
    silu = lambda x: x / (1 + np.exp(-x))
    q, k, v = np.split(silu(causal(qkv, w["ssm_conv1d.weight"].astype(float))).reshape(n, 3, a, d), 3, 1)
    unit = lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)
    q, k, v = unit(q[:, 0]) / np.sqrt(d), unit(k[:, 0]), v[:, 0]
    decay = np.exp(w["ssm_a"] * np.log1p(np.exp(y @ w["ssm_alpha.weight"].T.astype(float) + w["ssm_dt.bias"])))
    rate = 1 / (1 + np.exp(-(y @ w["ssm_beta.weight"].T.astype(float))))
    state, out = np.zeros((a, d, d)), np.zeros((n, a, d))
    for i in range(n):
        state = state * decay[i, :, None, None]
        error = rate[i, :, None] * (v[i] - np.einsum("hk,hkv->hv", k[i], state))
        state = state + np.einsum("hk,hv->hkv", k[i], error)
        out[i] = np.einsum("hk,hkv->hv", q[i], state)
    return norm(out, w["ssm_norm.weight"].astype(float)).reshape(n, -1) * silu(z)


def both_directions(w: dict, i: int, y: np.ndarray) -> np.ndarray:
    blk = f"blk.{i}."
    names = ("attn_q", "attn_v", "attn_gate") if mixer(i) == "ttt_linear" else ("attn_q", "attn_k", "attn_v", "attn_gate")
    p = [product(w, blk + name, y) for name in names]
    inputs = p if mixer(i) == "ttt_linear" else [np.concatenate(p[:3], 1), p[3]]
    read = ttt_linear if mixer(i) == "ttt_linear" else gated_delta
    own = [{name[len(blk + at) + 1:]: x for name, x in w.items() if name.startswith(f"{blk}{at}.")} for at in DIRECTIONS]
    return read(own[0], y, *inputs) + read(own[1], y[::-1], *(x[::-1] for x in inputs))[::-1]


def encode(w: dict, rows: list) -> tuple:
    """Word vectors and hidden states, `[n, hidden]` each; `rows` are the features of each word."""
    table = w["features.weight"].astype(float) * w["features.scale"].astype(float)[:, None]
    e = np.stack([table[r].sum(0) / np.sqrt(len(r)) for r in rows])
    x, n, heads = e, len(rows), CONFIG["num_attention_heads"]
    for i in range(CONFIG["num_hidden_layers"]):
        blk = f"blk.{i}."
        y = norm(x, w[blk + "attn_norm.weight"])
        if mixer(i) == "attention":
            q, k, v = (product(w, blk + name, y).reshape(n, heads, -1) for name in ("attn_q", "attn_k", "attn_v"))
            scores = np.einsum("nhd,mhd->hnm", turned(q), turned(k)) / np.sqrt(q.shape[-1])
            y = np.einsum("hnm,mhd->nhd", softmax(scores), v).reshape(n, -1)
        else:
            y = both_directions(w, i, y)
        x = x + product(w, blk + "attn_output", norm(y, w[blk + "attn_sub_norm.weight"]))
        y = norm(x, w[blk + "ffn_norm.weight"])
        gate, up = product(w, blk + "ffn_gate", y), product(w, blk + "ffn_up", y)
        y = norm(gate / (1 + np.exp(-gate)) * up, w[blk + "ffn_sub_norm.weight"])
        x = x + product(w, blk + "ffn_down", y)
    return e, norm(x, w["output_norm.weight"])


def may_follow(before, tag: int) -> bool:
    return tag == 0 or tag % 2 == 1 or before in (tag, tag - 1)


def best_tags(emissions: np.ndarray, transitions: np.ndarray) -> list:
    """Viterbi over a dictionary of legal paths, one for each last tag."""
    tags = emissions.shape[1]
    paths = {t: (transitions[tags, t] + emissions[0, t], [t]) for t in range(tags) if may_follow(None, t)}
    for row in emissions[1:]:
        paths = {t: max((s + transitions[b, t] + row[t], p + [t]) for b, (s, p) in paths.items() if may_follow(b, t))
                 for t in range(tags) if any(may_follow(b, t) for b in paths)}
    return max((s + transitions[tags + 1, t], p) for t, (s, p) in paths.items())[1]


def answer(w: dict, text: str) -> tuple:
    """The integers and the floats that a text gives."""
    words = split(text)
    rows = [features(text, words, i) for i in range(len(words))]
    e, h = encode(w, rows)
    pooled = np.concatenate([h.mean(0), h.max(0), e.mean(0)])
    at = [len(text[:i].encode()) for i in range(len(text) + 1)]
    exact = {"text": text, "words": [[at[start], at[end]] for _, start, end in words], "features": rows, "tasks": {}}
    floats = {"embedding": pooled / np.linalg.norm(pooled)}
    for t in CONFIG["tasks"]:
        name, temperature = t["name"], t["temperature"]
        head = lambda part: w[f"task.{name}.{part}"].astype(float)
        logits = head("intent.weight") @ pooled + head("intent.bias")
        intent = int(logits.argmax())
        floats[f"{name}.logits"] = logits
        floats[f"{name}.confidence"] = softmax(logits / temperature)[[intent]]
        floats[f"{name}.energy"] = np.array([temperature * np.log(np.exp(logits / temperature).sum())])
        found = exact["tasks"][name] = {"intent": intent}
        if t["slots"]:
            emissions = np.concatenate([h, e], -1) @ head("tags.weight").T + head("tags.bias")
            floats[f"{name}.emissions"] = emissions
            barred = [s for s in range(len(t["slots"])) if s not in t["intent_slots"][intent]]
            allowed = emissions.copy()
            allowed[:, [tag for s in barred for tag in (1 + 2 * s, 2 + 2 * s)]] = -1e9
            found["tags"] = best_tags(allowed, head("transitions"))
    return exact, floats


# ---- files

def write_safetensors(path: Path, tensors: dict) -> None:
    """The format by hand: length, JSON header, bytes; wide types first."""
    names = {"float32": "F32", "uint8": "U8", "int8": "I8"}
    header, data = {}, b""
    for name, x in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        x = np.ascontiguousarray(x)
        header[name] = {"dtype": names[str(x.dtype)], "shape": list(x.shape), "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def packed(trits: np.ndarray) -> np.ndarray:
    """Four rows, a quarter of the matrix apart, in a byte."""
    quarter = len(trits) // 4
    return sum((trits[j * quarter:(j + 1) * quarter] + 1).astype(np.uint8) << 2 * j for j in range(4)).astype(np.uint8)


def i2_s(trits: np.ndarray, scale: np.float32) -> bytes:
    codes = (trits.reshape(-1, 4, 32) + 1).astype(np.uint8)
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


def q8_0(codes: np.ndarray, scales: np.ndarray) -> bytes:
    """Every block of 32 codes after the scale of its row."""
    rows = zip(codes.reshape(len(codes), -1, 32), scales.astype(f16))
    return b"".join(scale.tobytes() + block.tobytes() for blocks, scale in rows for block in blocks)


def write_gguf(path: Path, w: dict) -> None:
    """The format by hand: version 3, three keys, tensors at multiples of 32."""
    string = lambda text: struct.pack("<Q", len(text.encode())) + text.encode()
    head = string("general.architecture") + struct.pack("<I", 8) + string(CONFIG["model_type"])
    head += string("extractor.format") + struct.pack("<II", 4, CONFIG["format"])
    head += string("extractor.config") + struct.pack("<I", 8) + string(json.dumps(CONFIG))
    infos, data = b"", b""
    names = [name for name in w if not name.endswith(("_scale", ".scale"))]
    for name in names:
        x = w[name]
        if name == "features.weight":
            kind, raw = 8, q8_0(x, w["features.scale"])
        elif x.dtype == np.int64:
            kind, raw = 36, i2_s(x, w[name + "_scale"][0])
        else:
            kind, raw = 0, x.tobytes()
        infos += string(name) + struct.pack("<I", x.ndim) + b"".join(struct.pack("<Q", d) for d in reversed(x.shape))
        infos += struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(names), 3) + head + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)


def write() -> None:
    for seed in itertools.count():
        w = weights(seed)
        try:
            answers = [answer(w, text) for text in TEXTS]
        except TooNear:
            continue
        # The longest text shall have a slot of two words and more.
        if any(tag in (2, 4) for tag in answers[0][0]["tasks"]["home"]["tags"]):
            break
    print(f"{root().name}: seed {seed}")
    stored = {name: packed(x) if x.dtype == np.int64 else x for name, x in w.items()}
    write_safetensors(root() / "model.safetensors", stored)
    write_gguf(root() / "extractor.gguf", w)
    (root() / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")
    exact = [e for e, _ in answers]
    (root() / "expected.json").write_text(json.dumps(exact, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    floats = {f"text{i}.{name}": x.astype(f32) for i, (_, found) in enumerate(answers) for name, x in found.items()}
    write_safetensors(root() / "expected.safetensors", floats)


def main() -> None:
    write()
    CONFIG["mixer"] = MIXERS
    TEXTS.append(LONG)
    write()


if __name__ == "__main__":
    main()
