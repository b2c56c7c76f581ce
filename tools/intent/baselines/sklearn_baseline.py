"""What an extractor has to beat: scikit-learn's linear models, on the files of `cargo xtask intent prepare-extract`.

Intents: TF-IDF of words and pairs of words and of 2 to 5 characters within words, logistic regression. Slots: a chain of
tags over the words around each word (sklearn-crfsuite). Needs numpy, scikit-learn and, for slots, sklearn-crfsuite.

    python sklearn_baseline.py --train snips.jsonl --test snips.test.jsonl snips.typos.jsonl

Lines whose `part` is `valid` are left out of training, as they are kept for choices there.
"""

import argparse
import json
import re
import time


def read(path, part=None):
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    return [u for u in lines if part is None or u.get("part", "train") == part]


def words(text):
    """Letters and digits side by side, and every other sign, with their places."""
    return [(m.group(), m.start(), m.end()) for m in re.finditer(r"\w+(?:'\w+)*|[^\w\s]", text)]


def tags(u, tokens):
    out = []
    for _, start, end in tokens:
        tag = "O"
        for slot in u.get("slots", []):
            if slot["start"] < end and start < slot["end"]:
                tag = ("B-" if start <= slot["start"] else "I-") + slot["name"]
        out.append(tag)
    return out


def features(tokens, i):
    at = lambda j: tokens[j][0].lower() if 0 <= j < len(tokens) else "^"
    word = tokens[i][0]
    out = {"bias": 1.0, "shape": re.sub(r"\d", "0", re.sub("[a-z]", "x", re.sub("[A-Z]", "X", word)))[:6]}
    for offset in range(-2, 3):
        out[f"w{offset}"] = at(i + offset)
    out["w-1,0"], out["w0,1"] = at(i - 1) + " " + at(i), at(i) + " " + at(i + 1)
    for n in (2, 3, 4):
        out[f"p{n}"], out[f"s{n}"] = word.lower()[:n], word.lower()[-n:]
    return out


def spans(u_text, tokens, row):
    found, open_ = [], None
    for (_, start, end), tag in zip(tokens, row):
        kind, _, name = tag.partition("-")
        if kind == "I" and open_ and open_[0] == name:
            open_[2] = end
        else:
            open_ = [name, start, end] if kind in "BI" else None
            if open_:
                found.append(open_)
    return sorted((name, u_text[start:end]) for name, start, end in found)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--train", required=True)
    args.add_argument("--test", nargs="+", required=True)
    args.add_argument("--c", type=float, default=20.0, help="inverse of the regularisation of intents")
    args.add_argument("--no-slots", action="store_true")
    args = args.parse_args()

    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline, make_union

    train = [u for u in read(args.train, "train")]
    inside = [u for u in train if u["intent"] is not None]
    began = time.time()
    model = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        ),
        LogisticRegression(C=args.c, max_iter=300),
    )
    model.fit([u["text"] for u in inside], [u["intent"] for u in inside])
    print(f"intents: {len(inside)} utterances learned in {time.time() - began:.0f} s")

    tagger = None
    if not args.no_slots and any(u.get("slots") for u in train):
        try:
            import sklearn_crfsuite
        except ImportError:
            print("slots: sklearn-crfsuite is not installed")
        else:
            began = time.time()
            tokens = [words(u["text"]) for u in train]
            tagger = sklearn_crfsuite.CRF(algorithm="lbfgs", c1=0.1, c2=0.05, max_iterations=80)
            tagger.fit([[features(t, i) for i in range(len(t))] for t in tokens], [tags(u, t) for u, t in zip(train, tokens)])
            print(f"slots: learned in {time.time() - began:.0f} s")

    for path in args.test:
        test = read(path)
        probabilities = model.predict_proba([u["text"] for u in test])
        said = model.classes_[probabilities.argmax(axis=1)]
        known = np.array([u["intent"] is not None for u in test])
        right = np.array([s == u["intent"] for s, u in zip(said, test)])
        line = f"{path}: {known.sum()} in scope, intent {100 * right[known].mean():.2f} %"
        if not known.all():
            line += f", AUROC of the largest probability {roc_auc_score(known, probabilities.max(axis=1)):.4f}"
        if tagger:
            hit = found = there = whole = 0
            for u, ok in zip(test, right):
                tokens = words(u["text"])
                row = tagger.predict_single([features(tokens, i) for i in range(len(tokens))])
                got = spans(u["text"], tokens, row)
                want = sorted((s["name"], u["text"][s["start"] : s["end"]]) for s in u.get("slots", []))
                left = list(want)
                for span in got:
                    if span in left:
                        left.remove(span)
                        hit += 1
                found, there, whole = found + len(got), there + len(want), whole + (ok and got == want)
            line += f", slots F1 {200 * hit / max(found + there, 1):.2f}, all right {100 * whole / len(test):.2f} %"
        print(line)


if __name__ == "__main__":
    main()
