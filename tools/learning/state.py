#!/usr/bin/env python3
"""Measures what a session keeps and how long the next token takes after 1 thousand to 1 million tokens, for mixers of constant memory.

    python3 tools/learning/state.py --program bitnet --out state.jsonl --contexts 1024,16384,131072
    python3 tools/learning/state.py --out state.jsonl --contexts 1048576 --models "gated delta"
    python3 tools/learning/state.py --out state.jsonl --svg docs/img/state-time.svg

Random weights in the shape of the model that comes with the program (`synthetic:`), `bitnet bench` with the tokens before read and not
measured. Lines are added to `--out`; the last one of a model and a context counts. Without `--contexts` nothing is measured.
"""

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path

from sweep import svg

SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1 << 21,
}
TTT = {"mixers": "ttt_linear", "ttt": {"share_qk": True, "use_gate": True}}
MODELS = {
    "gated delta": {**SHAPE, "mixers": "gated_delta"},
    "TTT-Linear": {**SHAPE, **TTT},
    "TTT-Linear, forgets": {**SHAPE, **TTT, "ttt": {**TTT["ttt"], "decay": True}},
}


def measure(program, name, context):
    with tempfile.TemporaryDirectory() as folder:
        shape = Path(folder) / (name.replace(" ", "-").replace(",", "") + ".json")
        shape.write_text(json.dumps(MODELS[name]))
        command = [program, "bench", "-m", f"synthetic:{shape}", "-p", "0", "-n", "512", "--context", str(context)]
        done = subprocess.run(command + ["--json", "--details"], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    low, high = answer["details"]["decode_range"]
    return {
        "model": name,
        "context": context,
        "state_bytes": answer["details"]["session_bytes"],
        "us": 1e6 / answer["decode_tok_s"],
        "us_range": [1e6 / high, 1e6 / low],
        "isa": answer["isa"],
        "threads": answer["threads"],
    }


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--program", default="bitnet")
    cli.add_argument("--out", type=Path, required=True)
    cli.add_argument("--contexts", default="")
    cli.add_argument("--models", default=";".join(MODELS), help="separated by ;")
    cli.add_argument("--svg", type=Path)
    args = cli.parse_args()
    for context in [int(c) for c in args.contexts.split(",") if c]:
        for name in args.models.split(";"):
            row = measure(args.program, name, context)
            with args.out.open("a") as out:
                out.write(json.dumps(row) + "\n")
            print(f"{name}, {context}: {row['us']:.1f} us", flush=True)
    rows = {}
    for line in args.out.read_text().splitlines():
        row = json.loads(line)
        rows[row["model"], row["context"]] = row
    contexts = sorted({c for _, c in rows})
    names = [n for n in MODELS if any(m == n for m, _ in rows)]
    print("| tokens before | " + " | ".join(f"{n}, KiB | us per token" for n in names) + " |")
    print("|--:" + "|--:" * (2 * len(names)) + "|")
    for c in contexts:
        cells = []
        for n in names:
            r = rows.get((n, c))
            cells += [f"{r['state_bytes'] / 1024:.0f}", f"{r['us']:.1f} ({r['us_range'][0]:.1f}-{r['us_range'][1]:.1f})"] if r else ["", ""]
        print(f"| {c:,} | " + " | ".join(cells) + " |")
    for n in names:
        times = [rows[n, c]["us"] for c in contexts if (n, c) in rows]
        print(f"{n}: the slowest median is {100 * (max(times) / min(times) - 1):.1f} % above the fastest")
    if args.svg:
        curves = [(n, [(math.log2(c), rows[n, c]["us"] / 200) for c in contexts if (n, c) in rows]) for n in names]
        ticks = [(math.log2(c), f"{c:,}") for c in contexts]
        args.svg.write_text(svg("Time of the next token", "tokens before", curves, ticks, "microseconds", 200, zero=True))


if __name__ == "__main__":
    main()
