#!/usr/bin/env python3
"""The trainer's speed beside the same model in PyTorch: one shape, one batch, the same number of threads, one after the other.

    python3 tools/learning/beside.py --program bitnet --data stories.txt --tokenizer tok2048.json

Needs PyTorch (`pip install torch`). The model is BitNet b1.58 of 5.25 million parameters (width 256, feed-forward 768, six layers, four
heads, two of keys, vocabulary 2048), steps of 32 windows of 256 tokens with AdamW. In PyTorch it is written as one would: straight-through
estimator, int8 activations and ternary weights as floats, `scaled_dot_product_attention`. Speeds are the median of steps after the first ones.
With `--compile` PyTorch compiles the model first.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

HIDDEN, FFN, LAYERS, HEADS, KV, VOCAB, BATCH, CONTEXT = 256, 768, 6, 4, 2, 2048, 32, 256


class Linear(nn.Linear):
    def forward(self, x):
        scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        x = x + ((x * scale).round().clamp(-128, 127) / scale - x).detach()
        mean = self.weight.abs().mean().clamp(min=1e-5)
        w = self.weight + ((self.weight / mean).round().clamp(-1, 1) * mean - self.weight).detach()
        return F.linear(x, w)


class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, 1e-5)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        d = HIDDEN // HEADS
        self.q, self.o = Linear(HIDDEN, HIDDEN, bias=False), Linear(HIDDEN, HIDDEN, bias=False)
        self.k, self.v = Linear(HIDDEN, KV * d, bias=False), Linear(HIDDEN, KV * d, bias=False)
        self.gate, self.up = Linear(HIDDEN, FFN, bias=False), Linear(HIDDEN, FFN, bias=False)
        self.down = Linear(FFN, HIDDEN, bias=False)
        self.norm1, self.norm2, self.sub1, self.sub2 = Norm(HIDDEN), Norm(HIDDEN), Norm(HIDDEN), Norm(FFN)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        h = self.norm1(x)
        heads = lambda y, n: y.view(b, t, n, -1).transpose(1, 2)
        q, k, v = heads(self.q(h), HEADS), heads(self.k(h), KV), heads(self.v(h), KV)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = k.repeat_interleave(HEADS // KV, 1), v.repeat_interleave(HEADS // KV, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, HIDDEN)
        x = x + self.o(self.sub1(y))
        h = self.norm2(x)
        return x + self.down(self.sub2(F.relu(self.gate(h)).square() * self.up(h)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm(HIDDEN)
        d = HIDDEN // HEADS
        angles = torch.outer(torch.arange(CONTEXT), 1e4 ** (-torch.arange(0, d, 2) / d)).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids, targets):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return F.cross_entropy(F.linear(self.norm(x), self.embed.weight).view(-1, VOCAB), targets.view(-1))


def pytorch(threads, seconds, compiled):
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = Model()
    n = sum(p.numel() for p in model.parameters())
    step = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    speeds, begin = [], time.perf_counter()
    while time.perf_counter() - begin < seconds or len(speeds) < 3:
        at = time.perf_counter()
        ids = torch.randint(0, VOCAB, (BATCH, CONTEXT + 1))
        loss = step(ids[:, :-1], ids[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        speeds.append(BATCH * CONTEXT / (time.perf_counter() - at))
    return n, speeds[2:]


def trainer(args, steps):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [args.program, "train", "--out", out, "--data", args.data, "--tokenizer", args.tokenizer, "--hidden", HIDDEN]
        command += ["--ffn", FFN, "--layers", LAYERS, "--heads", HEADS, "--kv-heads", KV, "--context", CONTEXT, "--batch", BATCH]
        command += ["--steps", steps, "--warmup", 2, "--threads", args.threads, "--across-documents", "--validate-every", 0]
        command += ["--checkpoint-every", 0, "--val-share", "0.001"]
        subprocess.run([str(c) for c in command], check=True, capture_output=True)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return [x["tok_s"] for x in lines if "tok_s" in x][2:]


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--program", default="bitnet")
    cli.add_argument("--data", type=Path, required=True)
    cli.add_argument("--tokenizer", type=Path, required=True)
    cli.add_argument("--threads", type=int, default=2)
    cli.add_argument("--seconds", type=float, default=25, help="of PyTorch")
    cli.add_argument("--steps", type=int, default=22, help="of the trainer")
    cli.add_argument("--compile", action="store_true")
    args = cli.parse_args()
    show = lambda name, s: print(f"{name}: {statistics.median(s):.0f} tokens/s ({min(s):.0f}-{max(s):.0f}, {len(s)} steps)", flush=True)
    first = trainer(args, args.steps // 2)
    n, other = pytorch(args.threads, args.seconds, args.compile)
    ours = first + trainer(args, args.steps // 2)
    print(f"{n / 1e6:.2f} M parameters, {args.threads} threads, {BATCH} x {CONTEXT}; PyTorch {torch.__version__}")
    show("bitnet train", ours)
    show("PyTorch", other)
    print(f"{statistics.median(ours) / statistics.median(other):.2f} times")


if __name__ == "__main__":
    main()
