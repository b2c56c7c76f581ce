"""How far typical mistakes move the logits of these cases: the tolerance of 1e-4 must see all of them."""

import dataclasses

import numpy as np

import case_bitnet
import case_llama
import case_sharded
from model64 import Model, Stepper


class NoActivationQuantisation(Stepper):
    def _linears(self, x, *names):
        return [self.w[n] @ x * self.m.alpha[n] for n in names]


class Scale128(Stepper):
    """Scale 128 instead of 127."""

    def _linears(self, x, *names):
        s = 128.0 / max(np.abs(x).max(), 1e-5)
        q = np.clip(np.rint(x * s), -128, 127)
        return [self.w[n] @ q * (self.m.alpha[n] / s) for n in names]


def changed(m: Model, alpha=None, **config) -> Model:
    c = dataclasses.replace(m.config, **config)
    return Model(c, m.embed, m.head, m.norms, m.t, alpha or m.alpha)


def report(name: str, m: Model, ids: list[int], mistakes: dict) -> None:
    want = Stepper(m).logits(ids)
    for mistake, (stepper, other) in mistakes.items():
        print(f"| {name} | {mistake} | {np.abs(stepper(other).logits(ids) - want).max():.1e} |", flush=True)


def main() -> None:
    m, ids = case_sharded.build()
    report("sharded_tiny", m, ids, {
        "no activation quantisation": (NoActivationQuantisation, m),
        "scale 128 / max": (Scale128, m),
        "theta 500000 (the default)": (Stepper, changed(m, theta=500000.0)),
        "theta 10000": (Stepper, changed(m, theta=10000.0)),
        "epsilon 1e-6": (Stepper, changed(m, eps=1e-6)),
        "SiLU": (Stepper, changed(m, act="silu")),
        "sub-norms left out": (Stepper, changed(m, sub_norms=False)),
    })
    m, ids, _ = case_llama.build(case_llama.TINY, 6, f16_scales=False)
    report("llama_tiny", m, ids, {
        "no activation quantisation": (NoActivationQuantisation, m),
        "weight_scale multiplies": (Stepper, changed(m, {n: 1 / a for n, a in m.alpha.items()})),
        "theta 500000": (Stepper, changed(m, theta=500000.0)),
        "epsilon 1e-5": (Stepper, changed(m, eps=1e-5)),
        "squared ReLU": (Stepper, changed(m, act="relu2")),
    })
    exact, rounded, master, ids = case_bitnet.build(case_bitnet.MERGED, 5)
    first, whole = dict(rounded.alpha), dict(exact.alpha)
    whole_t = dict(exact.t)
    for i in range(exact.config.layers):
        for members in case_bitnet.GROUPS.values():
            names = [f"layers.{i}.{n}" for n in members]
            mean = float(np.abs(np.concatenate([master[n] for n in names]).astype(np.float64)).mean())
            for n in names:
                first[n], whole[n] = first[names[0]], mean
                whole_t[n] = np.clip(np.rint(master[n] / mean), -1, 1).astype(np.int8)
    together = Model(exact.config, exact.embed, exact.head, exact.norms, whole_t, whole)
    report("merged_tiny packed", rounded, ids, {"first scale for all parts": (Stepper, changed(rounded, first))})
    report("merged_tiny master", exact, ids, {
        "one absmean for all parts": (Stepper, together),
        "scales rounded to bf16": (Stepper, rounded),
    })


if __name__ == "__main__":
    main()
