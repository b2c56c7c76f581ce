"""Steps of Muon in PyTorch, float64, from the formulas of https://kellerjordan.github.io/posts/muon/ and, for the factors of the
learning rate, of arXiv:2502.16982.

Every case is one matrix with a few random gradients; the last has a gradient of zeros. What `torch.optim.Muon` makes of the same,
with bfloat16 products, must agree within their precision.

    python testdata/scripts/case_muon.py        # writes testdata/units/muon.safetensors
"""

import math

import numpy as np
import torch

from common import out_root, rng, tensor, write_safetensors

A, B, C = 3.4445, -4.7750, 2.0315
MOMENTUM = 0.95
LR = 0.02
DECAY = 0.1
STEPS = 3
# Name, shape, rank of the gradients, scale of the learning rate, as PyTorch calls it.
CASES = [
    ("wide", (12, 40), 12, "match_rms_adamw"),
    ("tall", (40, 12), 12, "match_rms_adamw"),
    ("tall_original", (40, 12), 12, "original"),
    ("wide_original", (12, 40), 12, "original"),
    ("square", (24, 24), 24, "original"),
    ("rank_2", (16, 24), 2, "match_rms_adamw"),
    ("zeros", (8, 16), 0, "match_rms_adamw"),
]


def orthogonal(update: torch.Tensor) -> torch.Tensor:
    x = update.T if update.shape[0] > update.shape[1] else update
    x = x / max(float(torch.linalg.norm(x)), 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = A * x + (B * gram + C * (gram @ gram)) @ x
    return x.T if update.shape[0] > update.shape[1] else x


def factor(shape: tuple[int, int], scale: str) -> float:
    rows, cols = shape
    return 0.2 * math.sqrt(max(rows, cols)) if scale == "match_rms_adamw" else math.sqrt(max(1.0, rows / cols))


def steps(w: torch.Tensor, grads: list[torch.Tensor], scale: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and momentum after each step."""
    w, m, after = w.clone(), torch.zeros_like(w), []
    for g in grads:
        m = MOMENTUM * m + (1 - MOMENTUM) * g
        nesterov = MOMENTUM * m + (1 - MOMENTUM) * g
        w = w * (1 - LR * DECAY) - LR * factor(tuple(w.shape), scale) * orthogonal(nesterov)
        after.append((w.clone(), m.clone()))
    return after


def by_torch(w: torch.Tensor, grads: list[torch.Tensor], scale: str) -> torch.Tensor:
    p = torch.nn.Parameter(w.clone())
    muon = torch.optim.Muon([p], lr=LR, weight_decay=DECAY, momentum=MOMENTUM, adjust_lr_fn=scale)
    for g in grads:
        p.grad = g.clone()
        muon.step()
    return p.detach()


def main() -> None:
    tensors = {}
    for name, (rows, cols), rank, scale in CASES:
        r = rng(name)
        w = r.normal(size=(rows, cols), scale=0.02).astype(np.float32)
        grads = []
        for _ in range(STEPS):
            left, right = r.normal(size=(rows, max(rank, 1))), r.normal(size=(max(rank, 1), cols))
            grads.append((left @ right * (rank > 0) * 1e-3).astype(np.float32))
        exact = [torch.from_numpy(g).double() for g in grads]
        after = steps(torch.from_numpy(w).double(), exact, scale)
        single = steps(torch.from_numpy(w), [torch.from_numpy(g) for g in grads], scale)
        unit = LR * factor((rows, cols), scale)
        apart = max(float((a - b).abs().max()) for (a, _), (b, _) in zip(after, single)) / unit
        others = by_torch(torch.from_numpy(w), [torch.from_numpy(g) for g in grads], scale)
        far = float((others - after[-1][0]).abs().max()) / unit
        print(f"{name}: float32 is {apart:.1e} of the learning rate away, torch.optim.Muon {far:.1e}")
        # Bfloat16 has 8 bits, and singular values of 0 become roundings, which grow 3.4445-fold in each of five steps.
        assert far < (0.1 if rank in (0, min(rows, cols)) else 0.5), name
        tensors[f"{name}.w"] = tensor(w, torch.float32)
        for i, (g, (p, m)) in enumerate(zip(grads, after)):
            tensors[f"{name}.grad{i}"] = tensor(g, torch.float32)
            tensors[f"{name}.w{i}"] = p.float().contiguous()
            tensors[f"{name}.m{i}"] = m.float().contiguous()
    about = {"lr": LR, "weight_decay": DECAY, "momentum": MOMENTUM}
    write_safetensors(out_root() / "units" / "muon.safetensors", tensors, {k: str(v) for k, v in about.items()})


if __name__ == "__main__":
    main()
