#!/usr/bin/env python3
"""Lets a model tell stories, one JSON object a line, for `count.py`.

    python3 tools/stories/generate.py --model tiny.gguf --texts 100 --out told.jsonl
    python3 tools/stories/generate.py --model tiny.gguf --requests requests.jsonl --out told.jsonl

Story number N has the seed N. Without `--requests` every story begins with `--prompt`; with it the prompts are those of the file, which
`prompts.py --ask` makes, and the line after a request is the story.
"""

import argparse
import json
import subprocess
from pathlib import Path


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--program", default="bitnet")
    cli.add_argument("--model", help="by default the model of the program")
    cli.add_argument("--texts", type=int, default=100)
    cli.add_argument("--prompt", default="Once upon a time")
    cli.add_argument("--requests", type=Path)
    cli.add_argument("--temperature", default="0.6")
    cli.add_argument("--top-p", default="0.9")
    cli.add_argument("--most", default="500", help="tokens of a story")
    cli.add_argument("--out", type=Path, required=True)
    args = cli.parse_args()
    asked = [{"prompt": args.prompt}] * args.texts
    if args.requests:
        lines = args.requests.read_text(encoding="utf-8").splitlines()
        asked = [json.loads(line) for line in lines][: args.texts]
    with args.out.open("w", encoding="utf-8", newline="\n") as out:
        for seed, ask in enumerate(asked):
            prompt = ask["prompt"] + ("\n" if args.requests else "")
            command = [args.program, "run", prompt, "--seed", str(seed), "--temperature", args.temperature]
            command += ["--top-p", args.top_p, "-n", args.most, "--json", "-q"]
            command += ["-m", args.model] if args.model else []
            answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            story = answer["text"] if args.requests else args.prompt + answer["text"]
            row = {**ask, "seed": seed, "story": story, "ended": answer["finish_reason"] not in ("length", "context")}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{args.out}: {len(asked)} stories")


if __name__ == "__main__":
    main()
