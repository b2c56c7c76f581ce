"""A ternary transformer as plain arrays, its random weights, and an independent float64 forward pass.

The forward pass shares no code with transformers. It serves three purposes: to find token ids for which no activation
lies near a rounding boundary of its int8 code, to compare transformers' float32 logits with, and to keep the files
honest (a wrong permutation or scale shows as a large difference).
"""

from dataclasses import dataclass, field

import numpy as np

from common import bf16, rng

PROJECTIONS = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]
MARGIN = 1.5e-3  # Least distance of an activation from a rounding boundary, in units of one code.


def exact16(x: np.ndarray) -> np.ndarray:
    """Values that bf16 and f16 both hold exactly: bf16, with those too small for f16's normal range made zero."""
    x = bf16(x)
    return np.where(np.abs(x) < 2.0**-14, np.float32(0), x)


@dataclass(frozen=True)
class Config:
    name: str
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool
    act: str  # "relu2" or "silu"
    sub_norms: bool
    theta: float = 500000.0
    eps: float = 1e-5
    head_dim: int = 0
    embed_std: float = 1.0

    @property
    def hd(self) -> int:
        return self.head_dim or self.hidden // self.heads

    def shape(self, projection: str) -> tuple[int, int]:
        q, kv = self.heads * self.hd, self.kv_heads * self.hd
        return {
            "q_proj": (q, self.hidden),
            "k_proj": (kv, self.hidden),
            "v_proj": (kv, self.hidden),
            "o_proj": (self.hidden, q),
            "gate_proj": (self.ffn, self.hidden),
            "up_proj": (self.ffn, self.hidden),
            "down_proj": (self.hidden, self.ffn),
        }[projection.split(".")[1]]

    def norms(self) -> dict[str, int]:
        names = {"norm": self.hidden}
        for i in range(self.layers):
            p = f"layers.{i}."
            names[p + "input_layernorm"] = self.hidden
            names[p + "post_attention_layernorm"] = self.hidden
            if self.sub_norms:
                names[p + "self_attn.attn_sub_norm"] = self.heads * self.hd
                names[p + "mlp.ffn_sub_norm"] = self.ffn
        return names


@dataclass
class Model:
    """`t[name]` int8 `[out, in]` and `alpha[name]` per ternary projection, so that the weight is `alpha * t`."""

    config: Config
    embed: np.ndarray
    head: np.ndarray
    norms: dict[str, np.ndarray]
    t: dict[str, np.ndarray] = field(default_factory=dict)
    alpha: dict[str, float] = field(default_factory=dict)


def random_master(c: Config, seed: int) -> tuple[Model, dict[str, np.ndarray]]:
    """Random embeddings and norms (all representable in bf16) and full-precision bf16 master weights."""
    g = rng(c.name, seed)
    # With larger rows a tied head would mostly predict the last token again.
    embed = exact16(g.normal(size=(c.vocab, c.hidden)) * (c.hidden**-0.5 if c.tied else c.embed_std))
    head = embed if c.tied else exact16(g.normal(size=(c.vocab, c.hidden)) * 0.3)
    norms = {n: bf16(g.uniform(0.5, 1.5, size)) for n, size in c.norms().items()}
    master = {}
    for i in range(c.layers):
        for p in PROJECTIONS:
            out, inner = c.shape(p)
            sigma = g.uniform(0.7, 2.0) / np.sqrt(inner)
            master[f"layers.{i}.{p}"] = bf16(g.normal(size=(out, inner)) * sigma)
    return Model(c, embed, head, norms), master


def absmean(w: np.ndarray) -> tuple[np.ndarray, float]:
    """Ternary part and scale of a master weight; refuses weights that lie near a rounding boundary."""
    alpha = max(float(np.abs(w.astype(np.float64)).mean()), 1e-5)
    scaled = w.astype(np.float64) / alpha
    if np.abs(np.abs(scaled) - 0.5).min() < 1e-5:
        raise ValueError("a master weight lies on a rounding boundary")
    return np.clip(np.rint(scaled), -1, 1).astype(np.int8), alpha


class Near(Exception):
    """An activation lies too near a rounding boundary."""


class Stepper:
    """Runs a model token by token in float64, with a list of keys and values per layer as its state."""

    def __init__(self, model: Model):
        self.m, self.c = model, model.config
        self.w = {n: t.astype(np.float64) for n, t in model.t.items()}

    def start(self) -> list:
        return [([], []) for _ in range(self.c.layers)]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return self.m.norms[name].astype(np.float64) * x / np.sqrt((x * x).mean() + self.c.eps)

    def _linears(self, x: np.ndarray, *names: str) -> list[np.ndarray]:
        s = 127.0 / max(np.abs(x).max(), 1e-5)
        y = x * s
        self.near = min(self.near, np.abs(y - np.floor(y) - 0.5).min())
        if self.near < self.margin:
            raise Near
        q = np.clip(np.rint(y), -128, 127)
        return [self.w[n] @ q * (self.m.alpha[n] / s) for n in names]

    def _rope(self, x: np.ndarray, pos: int) -> np.ndarray:
        d = self.c.hd
        angle = pos * self.c.theta ** (-np.arange(0, d, 2) / d)
        a, b = x[:, : d // 2], x[:, d // 2 :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=1)

    def step(self, state: list, token: int, margin: float = 0.0) -> tuple[np.ndarray, list]:
        """Logits after one more token and the new state. Raises `Near` if an activation is closer than `margin`."""
        c, self.margin, self.near = self.c, margin, 1.0
        x = self.m.embed[token].astype(np.float64)
        new = []
        for i, (keys, values) in enumerate(state):
            p = f"layers.{i}."
            a = self._norm(x, p + "input_layernorm")
            q, k, v = self._linears(a, *(p + f"self_attn.{n}_proj" for n in "qkv"))
            q, k, v = q.reshape(-1, c.hd), k.reshape(-1, c.hd), v.reshape(-1, c.hd)
            pos = len(keys)
            keys, values = keys + [self._rope(k, pos)], values + [v]
            new.append((keys, values))
            group = c.heads // c.kv_heads
            kk, vv = (np.repeat(np.stack(z), group, axis=1) for z in (keys, values))
            scores = np.einsum("hd,thd->ht", self._rope(q, pos), kk) / np.sqrt(c.hd)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            o = np.einsum("ht,thd->hd", weights, vv).ravel()
            if c.sub_norms:
                o = self._norm(o, p + "self_attn.attn_sub_norm")
            x = x + self._linears(o, p + "self_attn.o_proj")[0]
            m = self._norm(x, p + "post_attention_layernorm")
            gate, up = self._linears(m, p + "mlp.gate_proj", p + "mlp.up_proj")
            act = np.maximum(gate, 0) ** 2 if c.act == "relu2" else gate / (1 + np.exp(-gate))
            u = act * up
            if c.sub_norms:
                u = self._norm(u, p + "mlp.ffn_sub_norm")
            x = x + self._linears(u, p + "mlp.down_proj")[0]
        return self.m.head.astype(np.float64) @ self._norm(x, "norm"), new

    def logits(self, ids: list[int]) -> np.ndarray:
        state, rows = self.start(), []
        for token in ids:
            row, state = self.step(state, token)
            rows.append(row)
        return np.stack(rows)

    def least_margin(self, ids: list[int]) -> float:
        state, least = self.start(), 1.0
        for token in ids:
            _, state = self.step(state, token)
            least = min(least, self.near)
        return least

    def greedy(self, ids: list[int], n: int) -> tuple[list[int], list[float]]:
        """`n` argmax ids, and for each step the gap of the two largest logits over the deviation of all of them."""
        state, out, gaps = self.start(), [], []
        for token in ids:
            row, state = self.step(state, token)
        for _ in range(n):
            second, first = np.partition(row, -2)[-2:]
            gaps.append(float((first - second) / row.std()))
            out.append(int(row.argmax()))
            row, state = self.step(state, out[-1])
        return out, gaps


CLEAR = 0.15  # A greedy step counts while its gap exceeds this share of the logits' deviation.


def clear_steps(gaps) -> int:
    """How many greedy steps come before the first unclear one."""
    return next((i for i, gap in enumerate(gaps) if gap <= CLEAR), len(gaps))


def find_ids(model: Model, length: int, first: int | None = None, allowed=None, steps: int = 16, distinct: int = 8,
             accept=lambda new: True):
    """Ids as `search` finds them whose greedy continuation of 32 is clear for at least `steps` steps and has at least
    `distinct` different ids, and which `accept` likes; None if there are none."""
    for seed in range(20):
        ids = search(model, length, first, allowed, seed)
        if ids is None:
            return None
        new, gaps = Stepper(model).greedy(ids, 32)
        if clear_steps([gap - 0.01 for gap in gaps]) >= steps and len(set(new)) >= distinct and accept(new):
            return ids
    return None


def search(model: Model, length: int, first: int | None = None, allowed=None, seed: int = 0) -> list[int] | None:
    """Token ids for which every activation keeps `MARGIN` from a rounding boundary, by depth-first search.

    `first` fixes the first id (a BOS); `allowed(ids)` may reject a prefix. Returns None if there are none.
    """
    stepper, g = Stepper(model), rng(model.config.name + "/ids", seed)
    budget = [20000]

    def extend(ids: list[int], state: list) -> list[int] | None:
        if len(ids) == length:
            return ids
        order = [first] if first is not None and not ids else g.permutation(model.config.vocab).tolist()
        for token in order:
            if token in ids or (allowed is not None and not allowed(ids + [token])):
                continue
            budget[0] -= 1
            if budget[0] < 0:
                return None
            try:
                _, new = stepper.step(state, token, MARGIN)
            except Near:
                continue
            found = extend(ids + [token], new)
            if found is not None:
                return found
        return None

    return extend([], stepper.start())
