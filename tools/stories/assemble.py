#!/usr/bin/env python3
"""Puts stories of several files into one text for `bitnet train`, without those of the validation text and without repetitions.

    python3 tools/stories/assemble.py --against valid.txt --out stories.txt train.txt train_recased.txt more.json \\
        --wrapped storybook.txt

A `.txt` file has stories between lines `<|endoftext|>`; a `.json` file is a list of texts, or an object with the list `texts`.
`--wrapped` names files whose lines end where a page had room: lines of a paragraph are joined.

A story is left out if
- it has fewer than 30 words, or signs that are no text (a replacement character, a NUL);
- a fifth or more of its runs of eight words occur in the validation text, or one run of 25 does;
- half or more of its runs of eight words occur in stories that were taken before.
The result depends on the files and their order only. What was taken and left out is printed, with a SHA-256 of each file.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

END = "<|endoftext|>"
RUN, LONG = 8, 25


def words(text):
    return re.findall(r"[a-z0-9']+", text.lower())


def runs(ws, n):
    return [" ".join(ws[i : i + n]) for i in range(len(ws) - n + 1)]


def read(path, wrapped):
    data = path.read_bytes()
    text = data.decode("utf-8")
    if path.suffix == ".json":
        value = json.loads(text)
        stories = value["texts"] if isinstance(value, dict) else value
    else:
        stories = re.split(rf"^{re.escape(END)}$", text, flags=re.M)
    stories = [tidy(s, wrapped) for s in stories]
    return hashlib.sha256(data).hexdigest(), [s for s in stories if s]


def tidy(story, wrapped):
    """One story: plain quotes, no blank lines, no spaces at ends of lines."""
    for a, b in [("\r", ""), ("\u2018", "'"), ("\u2019", "'"), ("\u201c", '"'), ("\u201d", '"'), ("\u00a0", " "), ("\u2014", " - ")]:
        story = story.replace(a, b)
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in story.split("\n")]
    lines = [line for line in lines if line]
    if wrapped:
        joined = []
        for line in lines:
            # A line continues the one before if that one does not end a sentence.
            if joined and not re.search(r"[.!?:][\"')]*$", joined[-1]):
                joined[-1] += " " + line
            else:
                joined.append(line)
        lines = joined
    return "\n".join(lines)


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("files", nargs="+", type=Path)
    cli.add_argument("--wrapped", nargs="*", type=Path, default=[])
    cli.add_argument("--against", required=True, type=Path, help="validation text")
    cli.add_argument("--out", required=True, type=Path)
    args = cli.parse_args()

    held = words(args.against.read_text(encoding="utf-8").replace(END, " "))
    held_runs, held_long = set(runs(held, RUN)), set(runs(held, LONG))
    seen, taken = set(), []
    print(f"{'file':36} {'stories':>8} {'short':>6} {'valid':>6} {'again':>6} {'taken':>6} {'characters':>11}  sha256")
    for path, wrapped in [(p, False) for p in args.files] + [(p, True) for p in args.wrapped]:
        digest, stories = read(path, wrapped)
        count = dict(short=0, valid=0, again=0, taken=0, characters=0)
        for story in stories:
            ws = words(story)
            mine = set(runs(ws, RUN))
            if len(ws) < 30 or "\ufffd" in story or "\0" in story:
                count["short"] += 1
            elif len(mine & held_runs) >= 0.2 * len(mine) or not held_long.isdisjoint(runs(ws, LONG)):
                count["valid"] += 1
            elif len(mine & seen) >= 0.5 * len(mine):
                count["again"] += 1
            else:
                count["taken"] += 1
                count["characters"] += len(story)
                seen |= mine
                taken.append(story)
        row = " ".join(f"{count[k]:>{n}}" for k, n in [("short", 6), ("valid", 6), ("again", 6), ("taken", 6), ("characters", 11)])
        print(f"{path.name:36} {len(stories):>8} {row}  {digest[:16]}")
    text = "".join(f"{story}\n{END}\n" for story in taken)
    args.out.write_text(text, encoding="utf-8", newline="\n")
    print(f"{args.out}: {len(taken)} stories, {len(text.encode())} bytes, {hashlib.sha256(text.encode()).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
