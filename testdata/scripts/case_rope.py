"""Frequencies of stretched rotary embeddings, step by step as transformers' modeling_rope_utils.py computes them, in numpy.

Every operation is one of float32, in the order of `_compute_linear_scaling_parameters` and `_compute_llama3_parameters`; a number
divided by a tensor is the tensor's reciprocal times the number there. The power alone is computed in float64 and rounded.

    python testdata/scripts/case_rope.py        # writes testdata/units/rope.json
"""
import json
import math

import numpy as np

from common import out_root

f = np.float32


def plain(theta, d):
    exponents = (np.arange(0, d, 2).astype(f) / f(d)).astype(np.float64)
    return f(1) / np.power(float(f(theta)), exponents).astype(f)


def linear(theta, d, factor):
    return plain(theta, d) / f(factor)


def llama3(theta, d, factor, low, high, original):
    inv = plain(theta, d)
    wave = (f(1) / inv) * f(2 * math.pi)
    scaled = np.where(wave > f(original / low), inv / f(factor), inv)
    smooth = ((f(1) / wave) * f(original) - f(low)) / f(high - low)
    mixed = (f(1) - smooth) * scaled / f(factor) + smooth * scaled
    between = ~(wave < f(original / high)) & ~(wave > f(original / low))
    return np.where(between, mixed, scaled)


CASES = [
    {"theta": 10000.0, "head_dim": 64, "scaling": {"rope_type": "linear", "factor": 4.0}},
    {"theta": 500000.0, "head_dim": 128, "scaling": {"rope_type": "linear", "factor": 3.7}},
    {
        "theta": 500000.0, "head_dim": 128,
        "scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192},
    },
    {
        "theta": 500000.0, "head_dim": 64,
        "scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192},
    },
    {
        "theta": 10000.0, "head_dim": 32,
        "scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.5, "high_freq_factor": 6.0,
                    "original_max_position_embeddings": 512},
    },
]

def main():
    for case in CASES:
        s = case["scaling"]
        if s["rope_type"] == "linear":
            values = linear(case["theta"], case["head_dim"], s["factor"])
        else:
            names = ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
            values = llama3(case["theta"], case["head_dim"], *(s[name] for name in names))
        case["frequencies"] = [float(v) for v in values]
    lines = ",\n".join(json.dumps(case) for case in CASES)
    folder = out_root() / "units"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rope.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
