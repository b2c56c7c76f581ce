#!/usr/bin/env python3
"""Counts what is wrong with stories: sentences that come again, names that change, stories without an end, requests not followed.

    python3 tools/stories/count.py told.jsonl other.jsonl stories.txt
    python3 tools/stories/count.py --print 20 told.jsonl

A `.jsonl` file is one that `generate.py` made; a `.txt` file has stories between lines `<|endoftext|>`, to count the same of real ones.

- repeats: stories in which a sentence of four words or more comes twice; and such sentences as a share of all.
- loops: stories in which a run of six words comes three times.
- lost: of the stories that give a name by "named" or "called", those that do not have that name in their second half.
- new: stories whose last third has a name that was not there before and is not introduced.
- ended: stories that the model ended, with a full stop or the like.
- words: of the words of a request, the share that the story has (also as part of a longer word: "played" for "play"); all: stories that
  have all three; topic: stories that have the noun of the request.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

END = "<|endoftext|>"
NO_NAMES = set(
    """I I'm I'll I'd I've Mom Dad Mommy Daddy Mama Papa Mummy Mum Grandma Grandpa Mr Mrs Miss God TV OK Okay Yes No Monday Tuesday Wednesday
    Thursday Friday Saturday Sunday Christmas The A An Let's It It's He She They We You What Why How Can Do Don't Thank Please Sorry Hello Hi Look
    Wow Oh Stop Help Come Hey Bye Goodbye But And So One Once Every Then Now Good My Your That This There Where Who When If In On At For With""".split()
)


def sentences(story):
    parts = re.split(r"[.!?]+[\"']*\s*|\n+", story)
    return [" ".join(re.findall(r"[a-z']+", p.lower())) for p in parts if len(re.findall(r"[A-Za-z']+", p)) >= 4]


def names(story):
    """Names with the place of the first letter: capital letters that do not begin a sentence, and what "named" is followed by."""
    found = []
    for m in re.finditer(r"(?<=[a-z,] )([A-Z][a-z]+)\b", story):
        if m[1] not in NO_NAMES:
            found.append((m[1], m.start()))
    return found


def measure(row):
    story = row["story"]
    said = sentences(story)
    again = sum(n - 1 for n in Counter(said).values())
    ws = re.findall(r"[a-z']+", story.lower())
    runs = Counter(tuple(ws[i : i + 6]) for i in range(len(ws) - 5))
    found = names(story)
    hero = re.search(r"\b(?:named|called) ([A-Z][a-z]+)", story)
    out = {
        "sentences": len(said),
        "again": again,
        "repeats": again > 0,
        "loops": any(n >= 3 for n in runs.values()),
        "hero": hero is not None,
        "lost": hero is not None and hero[1] not in story[len(story) // 2 :],
        "ended": bool(row["ended"]) and re.search(r"[.!?][\"']*\s*$", story) is not None,
        "count": len(ws),
    }
    late = len(story) * 2 // 3
    before = story[:late]
    out["new"] = any(
        at >= late and name not in before and not re.search(rf"(?:named|called|friends?,?|name is|am|I'm) {name}", story[late:])
        for name, at in found
    )
    if "words" in row:
        has = [w for w in row["words"] if w.lower() in story.lower()]
        noun = re.sub(r" named .*", "", row["about"]).split()[-1]
        out.update(asked=len(row["words"]), has=len(has), all=len(has) == len(row["words"]), topic=noun in story.lower())
    return out


def rows_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    stories = [s.strip() for s in re.split(rf"^{re.escape(END)}$", text, flags=re.M)]
    return [{"story": s, "ended": True} for s in stories if s]


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("files", nargs="+", type=Path)
    cli.add_argument("--print", type=int, default=0, help="print the first stories, unedited")
    args = cli.parse_args()
    print("| stories | | words each | repeats | sentences again | loops | lost | new | ended | words | all | topic |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for path in args.files:
        rows = rows_of(path)
        m = [measure(r) for r in rows]
        total = lambda key: sum(x[key] for x in m)
        share = lambda a, b: f"{100 * a / b:.1f} %" if b else ""
        cells = [
            path.name,
            len(m),
            f"{total('count') / max(len(m), 1):.0f}",
            share(total("repeats"), len(m)),
            share(total("again"), total("sentences")),
            share(total("loops"), len(m)),
            share(total("lost"), total("hero")),
            share(total("new"), len(m)),
            share(total("ended"), len(m)),
        ]
        asked = [x for x in m if "asked" in x]
        part = lambda a, b: share(sum(x[a] for x in asked), sum(x[b] for x in asked) if b else len(asked)) if asked else ""
        cells += [part("has", "asked"), part("all", None), part("topic", None)]
        print("| " + " | ".join(str(c) for c in cells) + " |")
    for path in args.files if args.print else []:
        for row in rows_of(path)[: args.print]:
            quoted = row["story"].strip().replace("\n", "\n> ")
            asked = f"**{row['prompt']}** " if "about" in row else ""
            print(f"\n{row.get('seed', '')}. {asked}\n\n> {quoted}")


if __name__ == "__main__":
    main()
