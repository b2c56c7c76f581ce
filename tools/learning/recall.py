#!/usr/bin/env python3
"""Trains small models of constant memory on texts in which something is to be remembered, and measures how far back they know it.

    cargo build --release -p bitnet --example recall
    python3 tools/learning/recall.py --program bitnet --example target/release/examples/recall --out recall --mixer gated-delta

The texts are those of the example `recall`: three friends, who has what, other sentences, and questions. Three runs follow each other: in
the first nothing stands between facts and questions, then distances become longer; each takes the weights of the one before. What is measured are other texts, which ask
after a number of tokens. A run that is there is not trained again; a run that was stopped goes on.
"""

import argparse
import subprocess
from pathlib import Path

# Longest distance in words, questions of a text, number of texts, window, windows' worth of documents in a step, steps.
RUNS = [
    ("at-once", 0, 12, 12000, 384, 8, 400),
    ("near", 30, 12, 6000, 384, 8, 400),
    ("far", 3000, 6, 700, 4096, 1, 60),
]
SHAPE = ["--hidden", "128", "--ffn", "256", "--layers", "2", "--heads", "4", "--kv-heads", "4"]


def call(command):
    print(" ".join(map(str, command)), flush=True)
    subprocess.run([str(c) for c in command], check=True)


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--program", default="bitnet")
    cli.add_argument("--example", required=True, help="the program of examples/recall.rs")
    cli.add_argument("--out", type=Path, required=True)
    cli.add_argument("--mixer", default="gated-delta")
    cli.add_argument("--options", default="", help="more options of the mixer, such as \"--share-qk --gate\"")
    cli.add_argument("--rate", default="5e-3")
    cli.add_argument("--runs", type=int, default=2, help="how many of the three")
    cli.add_argument("--texts", default="100", help="texts that are measured")
    cli.add_argument("--distances", default="100,1000,10000")
    args = cli.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    config = args.out / "config.toml"
    config.write_text("[model]\nmax_position_embeddings = 32768\n[train]\nvalidate_windows = 40\n")
    before, done, model = None, 0, None
    for name, longest, questions, texts, window, batch, steps in RUNS[: args.runs]:
        for kind, number, seed in [("train", texts, 11), ("valid", 100, 12)]:
            path = args.out / f"{name}-{kind}.txt"
            if not path.is_file():
                write = ["--write", path, "--texts", number, "--seed", seed, "--longest", longest, "--questions", questions]
                call([args.example, *write])
        run = args.out / f"{args.mixer}-{name}"
        done += steps
        command = [args.program, "train", "--out", run, "--data", args.out / f"{name}-train.txt"]
        command += ["--val-data", args.out / f"{name}-valid.txt"]
        if (run / "export").is_dir():
            command = None
        elif (run / "checkpoint.safetensors").is_file():
            command += ["--tokenizer", run / "tokenizer.json", "--resume"]
        elif before:
            command += ["--tokenizer", before / "tokenizer.json", "--from", before]
        else:
            command += ["--train-tokenizer", "512", "--mixer", args.mixer, *args.options.split(), *SHAPE, "--optimizer", "muon"]
        if command and "--resume" not in command:
            command += ["--config", config, "--schedule", "wsd", "--lr", args.rate, "--warmup", 20, "--steps", done]
            command += ["--context", window, "--batch", batch, "--threads", 2, "--validate-every", 50, "--checkpoint-every", 50]
        if command:
            call(command)
        before, model = run, run / "export"
        call([args.example, f"{args.mixer}, {name}={model}", "--texts", args.texts, "--distances", args.distances])


if __name__ == "__main__":
    main()
