#!/usr/bin/env python3
"""Makes requests out of stories: "Write a story about X with the words A, B, C." and, in the next line, the story.

    python3 tools/stories/prompts.py stories.txt --out requests.txt
    python3 tools/stories/prompts.py stories.txt --ask 100 > requests.jsonl

X is who or what the beginning of the story introduces, else the noun that it has most often; A, B, C are words of the story that few
other stories have. Each story gives one request, in the order of the file; `--share` takes that part of them. `--ask N` prints N
requests of X and words that belong to different stories, one JSON object a line, to see whether a model follows requests that it
has not learned. `--seed` is all that is random.

Nothing here knows English grammar: a noun is a word that mostly comes after `a`, `the`, `his` and the like, and mostly before a word such as
`and`, `was`, or a sign. The lists are printed with `--show`.
"""

import argparse
import json
import random
import re
from collections import Counter
from pathlib import Path

END = "<|endoftext|>"
BEFORE = set("a an the his her their my your our its this that some".split())
AFTER = set(
    "and was is in on to with that had said for at but so of from were could would did who he she they it as or by into when because".split()
)
COMMON = set(
    """about again all also always and any are away back because been before big but can could day did didn't does don't down each even every
    felt first for from get go good got had happy has have he her here him his how if in into is it its just know let like little long look
    lot made make many more mom much named never new not now off once one only other our out over play put ran said saw say see she so some
    something started started such take tell than thank that the their them then there they thing things this time together told too took two
    under until upon very wanted was way went were what when where which while who why will with would yes you your""".split()
)


def stories_of(path):
    text = path.read_text(encoding="utf-8")
    return [s.strip() for s in re.split(rf"^{re.escape(END)}$", text, flags=re.M) if s.strip()]


def tokens(text):
    return re.findall(r"[A-Za-z']+|[.,!?\"]", text)


class Words:
    """What the stories say about words: in how many they are, and how often they stand where nouns stand."""

    def __init__(self, stories):
        self.stories, self.upper, self.total, self.noun = Counter(), Counter(), Counter(), Counter()
        for story in stories:
            ts = tokens(story)
            self.stories.update({t.lower() for t in ts if t[0].isalpha()})
            for i, t in enumerate(ts):
                if not t[0].isalpha():
                    continue
                w = t.lower()
                self.total[w] += 1
                if t[0].isupper() and i > 0 and ts[i - 1] not in '.!?"':
                    self.upper[w] += 1
                before = i > 0 and ts[i - 1].lower() in BEFORE
                before = before or (i > 1 and ts[i - 2].lower() in BEFORE)
                after = i + 1 < len(ts) and (not ts[i + 1][0].isalpha() or ts[i + 1].lower() in AFTER)
                self.noun[w] += before and after
        self.count = len(stories)

    def is_name(self, w):
        return self.upper[w] >= 0.3 * self.total[w]

    def is_noun(self, w):
        return self.total[w] >= 10 and self.noun[w] >= 0.45 * self.total[w] and w not in COMMON and not self.is_name(w)

    def is_rare(self, w):
        return len(w) > 2 and "'" not in w and 5 <= self.stories[w] <= 0.06 * self.count and w not in COMMON and not self.is_name(w)


def topic(story, words):
    """Who or what a story is about."""
    begin = " ".join(story.split()[:60])
    m = re.search(r"\b([Aa]n?) (?:[a-z]+ ){0,3}?([a-z]+) (?:named|called) ([A-Z][a-z]+)", begin)
    if m and words.is_noun(m[2]):
        article = "an" if m[2][0] in "aeiou" else "a"
        return f"{article} {m[2]} named {m[3]}"
    nouns = Counter(t for t in tokens(story) if t.islower() and words.is_noun(t))
    if not nouns:
        return None
    best = max(nouns, key=lambda w: (nouns[w], -words.stories[w], w))
    return f"{'an' if best[0] in 'aeiou' else 'a'} {best}"


def wanted(story, about, words, rng):
    """Three words of the story, in the order in which it has them."""
    seen = []
    for t in tokens(story):
        if t.islower() and words.is_rare(t) and t not in seen and t not in about.split():
            seen.append(t)
    if len(seen) < 3:
        return None
    picked = set(rng.sample(seen, 3))
    return [w for w in seen if w in picked]


def request(about, three):
    return f"Write a story about {about} with the words {', '.join(three)}."


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("stories", type=Path)
    cli.add_argument("--out", type=Path, help="text for bitnet train")
    cli.add_argument("--share", type=float, default=1.0, help="part of the stories that become requests")
    cli.add_argument("--ask", type=int, help="print so many requests without a story")
    cli.add_argument("--seed", type=int, default=1)
    cli.add_argument("--show", action="store_true", help="print the most frequent nouns and rare words")
    args = cli.parse_args()
    stories = stories_of(args.stories)
    words = Words(stories)
    if args.show:
        for name, test in [("nouns", words.is_noun), ("words", words.is_rare), ("names", words.is_name)]:
            print(name, *[w for w, _ in words.stories.most_common() if test(w)][:150])
        return
    rng = random.Random(args.seed)
    out, asked = [], []
    for story in stories:
        take = rng.random() < args.share
        about = topic(story, words)
        three = about and wanted(story, about, words, rng)
        if not take or not three:
            continue
        out.append(f"{request(about, three)}\n{story}\n{END}\n")
        asked.append((about, three))
    if args.ask:
        rng = random.Random(f"ask {args.seed}")
        for _ in range(args.ask):
            about = rng.choice(asked)[0]
            three = [rng.choice(rng.choice(asked)[1]) for _ in range(3)]
            print(json.dumps({"about": about, "words": three, "prompt": request(about, three)}))
        return
    if not args.out:
        raise SystemExit("give --out FILE, --ask N or --show")
    args.out.write_text("".join(out), encoding="utf-8", newline="\n")
    print(f"{args.out}: {len(out)} requests of {len(stories)} stories")


if __name__ == "__main__":
    main()
