"""What Python costs: tokens per second of the loops of this package beside the program's own, in turns.

    python bench/speed.py --bitnet target/release/bitnet [--model FILE] [--threads 1] [--rounds 5]

Greedy, the same tokens in every row. Each round runs every row once; the medians are printed, and the rate relative to that
of the native program. Prompts are not part of the time.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import ternary_lm

ROOT = Path(__file__).resolve().parents[3]
PROMPT = "Once upon a time there was a little girl named Lily. She had a red ball."


def native(args, tokens):
    command = [args.bitnet, "run", "-q", "-m", args.model, "--json", "-n", str(tokens), "--temperature", "0"]
    command += ["--threads", str(args.threads), "-p", PROMPT]
    done = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return done["ids"], done["stats"]["decode_tok_s"]


def whole(model, tokens):
    """`Model.generate`: one call."""
    generation = model.stream(PROMPT, max_tokens=tokens, temperature=0.0)
    began = time.perf_counter()
    generation.finish()
    return generation.ids, (len(generation.ids) - 1) / (time.perf_counter() - began)


def pieces(model, tokens):
    """A loop over the pieces of `Model.stream`."""
    generation = model.stream(PROMPT, max_tokens=tokens, temperature=0.0)
    began, count = time.perf_counter(), 0
    for _ in generation:
        count += 1
    return generation.ids, (len(generation.ids) - 1) / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bitnet", default=str(ROOT / "target/release/bitnet"))
    parser.add_argument("--model", default=str(ROOT / "models/tinystories-5m.gguf"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = ternary_lm.Model(args.model, threads=args.threads)
    rows = {
        "the program": lambda: native(args, args.tokens),
        "Model.generate": lambda: whole(model, args.tokens),
        "for piece in Model.stream": lambda: pieces(model, args.tokens),
    }
    rates = {name: [] for name in rows}
    for _ in range(args.rounds):
        texts = []
        for name, row in rows.items():
            ids, rate = row()
            texts.append(ids)
            rates[name].append(rate)
        assert all(ids == texts[0] for ids in texts), "the rows must generate the same"
    base = statistics.median(rates["the program"])
    for name, all_rates in rates.items():
        median = statistics.median(all_rates)
        print(f"{name:28} {median:10.0f} tokens/s  {median / base:6.3f}  ({min(all_rates):.0f} to {max(all_rates):.0f})")


if __name__ == "__main__":
    main()
