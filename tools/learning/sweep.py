#!/usr/bin/env python3
"""Trains the small models that docs/learning.md compares, and makes its tables and pictures.

    python3 tools/learning/sweep.py run --program bitnet --data stories.txt --valid valid.txt --tokenizer tok2048.json --out cells
    python3 tools/learning/sweep.py table cells
    python3 tools/learning/sweep.py plot cells docs/img

Every cell is one run of `bitnet train` with its own folder below `--out`; a cell that is finished is not trained again, so the command can be
stopped at any time and goes on. `--seconds` ends it before the next cell after that time. All cells have the same number of steps and the same
tokens in the same order (given the seed), and models of the same number of parameters to 3 %: the width of the feed-forward block makes up
for what a mixer has more or less. Cost is the CPU time of the process, which other programs on the machine hardly change, and not the time
that passed.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import time
from pathlib import Path

STEPS, BATCH, CONTEXT, WARMUP = 150, 8, 256, 15
SHAPE = {"hidden": 128, "layers": 4, "heads": 4, "kv-heads": 4}
# Options of each mixer, and the feed-forward width that makes the models equal.
MIXERS = {
    "attention": (["--mixer", "attention"], 384),
    "TTT-Linear": (["--mixer", "ttt-linear", "--share-qk", "--gate"], 368),
    "TTT-Linear, forgets": (["--mixer", "ttt-linear", "--share-qk", "--gate", "--ttt-decay"], 368),
    "gated delta": (["--mixer", "gated-delta"], 336),
    "3 gated delta, 1 attention": (["--mixer", "gated-delta,gated-delta,attention,gated-delta"], 348),
}
RATES = {"adamw": [2.5e-3, 5e-3, 1e-2, 2e-2], "muon": [5e-3, 1e-2, 2e-2, 4e-2]}
# Where the search of attention and of the gated delta rule found the best rates; other mixers get these.
BEST = {"adamw": 5e-3, "muon": 1e-2}
SEARCHED = ["attention", "gated delta"]
SEEDS = [1, 2, 3]


def cells():
    """All cells in the order in which they are trained: mixer, optimizer, rate, seed."""
    order = [(m, o, r, 1) for m in SEARCHED for o in RATES for r in RATES[o]]
    order += [(m, o, BEST[o], 1) for m in MIXERS for o in RATES]
    order += [(m, "muon", BEST["muon"], s) for s in SEEDS for m in MIXERS]
    order += [(m, "adamw", BEST["adamw"], s) for s in SEEDS for m in SEARCHED]
    return list(dict.fromkeys(order))


def folder(out, cell):
    mixer, optimizer, rate, seed = cell
    name = "".join(c if c.isalnum() else "-" for c in mixer).strip("-")
    return out / f"{name}_{optimizer}_{rate:g}_s{seed}"


def run(args):
    begin = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    todo = [c for c in cells() if not (folder(args.out, c) / "result.json").is_file()]
    for i, cell in enumerate(todo):
        if args.seconds and time.monotonic() - begin > args.seconds:
            print(f"{len(todo) - i} cells to go")
            return
        mixer, optimizer, rate, seed = cell
        options, ffn = MIXERS[mixer]
        place = folder(args.out, cell)
        command = [args.program, "train", "--out", str(place), "--data", str(args.data), "--val-data", str(args.valid)]
        command += ["--tokenizer", str(args.tokenizer), *options, "--ffn", str(ffn)]
        for name, value in SHAPE.items():
            command += [f"--{name}", str(value)]
        command += ["--optimizer", optimizer, "--lr", str(rate), "--schedule", "wsd", "--warmup", str(WARMUP)]
        command += ["--steps", str(STEPS), "--batch", str(BATCH), "--context", str(CONTEXT), "--seed", str(seed)]
        command += ["--threads", "2", "--validate-every", "50", "--checkpoint-every", "50", "--config", str(config(args.out))]
        if (place / "checkpoint.safetensors").is_file():
            command = [args.program, "train", "--out", str(place), "--resume", "--data", str(args.data), "--val-data", str(args.valid)]
            command += ["--tokenizer", str(args.tokenizer)]
        child = subprocess.Popen(command + ["-v"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        if status != 0:
            raise SystemExit(f"{place}: {said}")
        lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
        losses = [(x["tokens"], x["val_nats_per_token"]) for x in lines if "val_nats_per_token" in x]
        parameters = next((w for w in said.split("\n") if " parameters" in w), "").split(" M parameters")[0]
        result = {
            "mixer": mixer,
            "optimizer": optimizer,
            "rate": rate,
            "seed": seed,
            "parameters": parameters,
            "tokens": losses[-1][0],
            "valid": losses,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
        }
        (place / "result.json").write_text(json.dumps(result))
        for name in ["checkpoint.safetensors", "checkpoint.previous.safetensors"]:
            (place / name).unlink(missing_ok=True)
        print(f"{place.name}: {losses[-1][1]:.3f} nats, {result['cpu_seconds']:.0f} s of CPU", flush=True)
    print("all cells are finished")


def config(out):
    path = out / "config.toml"
    path.write_text("[model]\nmax_position_embeddings = 4096\n[train]\nvalidate_windows = 128\n")
    return path


def results(out):
    found = {}
    for cell in cells():
        path = folder(out, cell) / "result.json"
        if path.is_file():
            found[cell] = json.loads(path.read_text())
    return found


def table(args):
    found = results(args.out)
    last = lambda cell: found[cell]["valid"][-1][1]
    for optimizer, rates in RATES.items():
        print(f"\n| `--lr`, {optimizer} | " + " | ".join(f"{r:g}" for r in rates) + " |\n|---" * 1 + "|--:" * len(rates) + "|")
        for mixer in SEARCHED:
            row = [f"{last(c):.3f}" if (c := (mixer, optimizer, r, 1)) in found else "" for r in rates]
            print(f"| {mixer} | " + " | ".join(row) + " |")
    print("\n| mixer | parameters | optimizer | validation, seeds | mean | CPU seconds |\n|---|--:|---|---|--:|--:|")
    for mixer in MIXERS:
        for optimizer, rate in BEST.items():
            mine = [c for c in [(mixer, optimizer, rate, s) for s in SEEDS] if c in found]
            if not mine:
                continue
            losses = [last(c) for c in mine]
            cpu = statistics.mean(found[c]["cpu_seconds"] for c in mine)
            each = ", ".join(f"{x:.3f}" for x in losses)
            print(f"| {mixer} | {found[mine[0]]['parameters']} M | {optimizer} | {each} | {statistics.mean(losses):.3f} | {cpu:.0f} |")


def plot(args):
    found = results(args.out)
    args.images.mkdir(parents=True, exist_ok=True)
    curves = []
    for optimizer in RATES:
        for mixer in SEARCHED:
            points = [(math.log2(r), found[c]["valid"][-1][1]) for r in RATES[optimizer] if (c := (mixer, optimizer, r, 1)) in found]
            curves.append((f"{mixer}, {optimizer}", points))
    ticks = sorted({r for rates in RATES.values() for r in rates})
    picture = svg("Validation loss by learning rate", "learning rate", curves, [(math.log2(t), f"{t:g}") for t in ticks])
    (args.images / "learning-rates.svg").write_text(picture)
    curves = []
    for mixer in MIXERS:
        for optimizer, rate in BEST.items():
            cell = (mixer, optimizer, rate, 1)
            if cell in found:
                curves.append((f"{mixer}, {optimizer}", [(n / 1e3, v) for n, v in found[cell]["valid"] if v < 6.5]))
    most = max((x for _, points in curves for x, _ in points), default=1)
    marks = [(most * i / 5, f"{most * i / 5:.0f}") for i in range(6)]
    (args.images / "learning-mixers.svg").write_text(svg("Validation loss by tokens", "thousand tokens", curves, marks))


COLOURS = ["#0b62a4", "#c0392b", "#2e8b57", "#8e44ad", "#b9770e", "#16a085", "#7f8c8d", "#d35400", "#34495e", "#e84393"]


def svg(title, x_name, curves, ticks, y_name="nats per token", unit=1, zero=False):
    """A plain picture: lines with a mark at each point, and a legend beside them. Values are in `unit`s, with a grid of a fifth."""
    w, h, left, top, right, bottom = 860, 420, 60, 40, 250, 50
    xs = [x for _, p in curves for x, _ in p] or [0, 1]
    ys = [y for _, p in curves for _, y in p] or [0, 1]
    x0, x1, y0, y1 = min(xs), max(xs), 0 if zero else math.floor(min(ys) * 5) / 5, math.ceil(max(ys) * 5 + 0.01) / 5
    px = lambda x: left + (x - x0) / ((x1 - x0) or 1) * (w - left - right)
    py = lambda y: h - bottom - (y - y0) / ((y1 - y0) or 1) * (h - top - bottom)
    text = lambda x, y, s, a="middle": f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{a}">{s}</text>'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="13">']
    parts += [f'<rect width="{w}" height="{h}" fill="#fff"/>', f'<text x="{left}" y="24" font-size="16">{title}</text>']
    steps = round((y1 - y0) / 0.2)
    for i in range(0, steps + 1, max(1, steps // 8)):
        y = y0 + i * 0.2
        parts.append(f'<line x1="{left}" x2="{w - right}" y1="{py(y):.1f}" y2="{py(y):.1f}" stroke="#ddd"/>')
        parts.append(text(left - 6, py(y) + 4, f"{y * unit:.{0 if unit > 1 else 1}f}", "end"))
    for x, name in ticks:
        if x0 - 1e-9 <= x <= x1 + 1e-9:
            parts.append(text(px(x), h - bottom + 20, name))
    parts += [text((left + w - right) / 2, h - 10, x_name), text(left, top - 4, y_name, "start")]
    for i, (name, points) in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        dash = ' stroke-dasharray="6 3"' if name.endswith("adamw") else ""
        line = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="3" fill="{colour}"/>' for x, y in points]
        y = top + 10 + 20 * i
        parts.append(f'<line x1="{w - right + 16}" x2="{w - right + 40}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(text(w - right + 46, y + 4, name, "start"))
    return "\n".join(parts + ["</svg>", ""])


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = cli.add_subparsers(required=True)
    train = commands.add_parser("run")
    for name in ["data", "valid", "tokenizer", "out"]:
        train.add_argument(f"--{name}", type=Path, required=True)
    train.add_argument("--program", default="bitnet")
    train.add_argument("--seconds", type=float)
    train.set_defaults(do=run)
    show = commands.add_parser("table")
    show.add_argument("out", type=Path)
    show.set_defaults(do=table)
    draw = commands.add_parser("plot")
    draw.add_argument("out", type=Path)
    draw.add_argument("images", type=Path)
    draw.set_defaults(do=plot)
    args = cli.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
