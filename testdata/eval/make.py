#!/usr/bin/env python3
"""Makes stories.jsonl: small questions with several answers, in the three forms that `bitnet eval` reads.

The right answers are common sense in simple stories; everything here was written for this file. Without arguments it
writes the file beside itself, with --check it compares.
"""
import json
import pathlib
import sys

# What happens, and how it goes on; the ends of other lines of the same group are the wrong answers.
GROUPS = [
    [
        ("Tom was very thirsty. He drank a glass of", "water."),
        ("Lily was cold. She put on a warm", "coat."),
        ("Ben was hungry. He ate a big red", "apple."),
        ("Mia was tired. She went to sleep in her", "bed."),
        ("It was raining. Sam took his", "umbrella."),
    ],
    [
        ("The little bird could fly high up in the", "sky."),
        ("The fish swam in the", "water."),
        ("The dog liked to chase the", "ball."),
        ("The cat climbed up the tall", "tree."),
        ("The bee sat down on a pretty", "flower."),
    ],
    [
        ("Tim lost his toy. He was very", "sad."),
        ("It was her birthday. Anna was very", "happy."),
        ("He heard a loud noise in the dark. Max was very", "scared."),
        ("She had worked all day. Mom was very", "tired."),
        ("He had not eaten all day. The boy was very", "hungry."),
    ],
    [
        ("Once upon a time, there was a little girl", "named Sue."),
        ("They played all day and then went", "home."),
        ("She gave her mom a big", "hug."),
        ("He said sorry, and they were friends", "again."),
        ("The children went to the park to", "play."),
    ],
]


def lines():
    number = 0
    for group in GROUPS:
        for own, (prompt, right) in enumerate(group):
            others = [end for other, (_, end) in enumerate(group) if other != own][:3]
            # The right answer wanders through all places.
            at = number % 4
            choices = others[:at] + [right] + others[at:]
            if number % 3 == 0:
                yield {"prompt": prompt, "choices": choices, "answer": at}
            elif number % 3 == 1:
                yield {"ctx": prompt, "endings": choices, "label": str(at)}
            else:
                labels = ["A", "B", "C", "D"]
                yield {
                    "id": f"stories-{number}",
                    "question": f"How does this go on? {prompt}",
                    "choices": {"text": choices, "label": labels},
                    "answerKey": labels[at],
                }
            number += 1


def main():
    path = pathlib.Path(__file__).parent / "stories.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in lines())
    if "--check" in sys.argv[1:]:
        same = path.read_text() == text
        print("the same" if same else "another")
        sys.exit(0 if same else 1)
    path.write_text(text)


main()
