"""Training: from text to a file that generates, from utterances to one that answers, and what Ctrl-C leaves."""

import json

import pytest

import ternary_lm

SMALL = {"steps": 6, "batch": 2, "context": 32, "threads": 1, "validate_every": 3, "checkpoint_every": 2}
SHAPE = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 256}


@pytest.fixture
def stories_file(tmp_path):
    path = tmp_path / "stories.txt"
    lines = [f"Once there was a dog with {n} balls. He ran to the park and played with ball {n % 7}." for n in range(300)]
    path.write_text("\n<|endoftext|>\n".join(lines))
    return path


def test_a_language_model(tmp_path, stories_file):
    events = []
    done = ternary_lm.train(
        [stories_file], tmp_path / "m", vocabulary=300, model=SHAPE, options=SMALL, validation=0.1, on_event=events.append
    )
    assert (done["finish"], done["steps"]) == ("completed", 6) and done["best_nats_per_token"] > 0
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4, 5, 6] and all(event["loss"] > 0 for event in steps)
    assert sum(event["event"] == "validation" for event in events) >= 2
    folder, file = (ternary_lm.Model(tmp_path / "m/export" / name) for name in ("", "model.gguf"))
    options = {"max_tokens": 12, "temperature": 0.0}
    assert folder.info["parameters"] == file.info["parameters"] > 10_000
    assert file.generate("Once", **options) == ternary_lm.Model(tmp_path / "m/export/model.gguf").generate("Once", **options)
    with pytest.raises(ternary_lm.TrainingError, match="resume=True"):
        ternary_lm.train([stories_file], tmp_path / "m", vocabulary=300, options=SMALL)


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path, stories_file):
    whole = ternary_lm.train([stories_file], tmp_path / "whole", vocabulary=300, model=SHAPE, options=SMALL)

    def interrupt(event):
        if event["event"] == "step" and event["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ternary_lm.train([stories_file], tmp_path / "cut", vocabulary=300, model=SHAPE, options=SMALL, on_event=interrupt)
    assert not (tmp_path / "cut/export").exists()
    again = ternary_lm.train([stories_file], tmp_path / "cut", resume=True)
    assert again["steps"] == whole["steps"]
    files = [tmp_path / run / "export/model.gguf" for run in ("whole", "cut")]
    logits = [ternary_lm.Model(file).logits("Once there was a dog").tolist() for file in files]
    assert logits[0] == logits[1]


def utterances():
    for room in ["kitchen", "hall", "cellar", "garden shed", "台所"]:
        for part in ("train", "valid"):
            for intent, before in {"on": "switch on the light in the ", "off": "turn it off in the "}.items():
                slot = {"name": "room", "start": len(before), "end": len(before) + len(room)}
                line = {"text": before + room, "intent": intent, "slots": [slot]}
                yield json.dumps(line | ({"part": "valid"} if part == "valid" else {}), ensure_ascii=False)


def test_an_extractor(tmp_path):
    path = tmp_path / "home.jsonl"
    path.write_text("\n".join(utterances()), encoding="utf-8")
    options = {"hidden": 32, "heads": 2, "buckets": 512, "steps": 80, "batch": 8, "lr": 5e-3}
    events = []
    done = ternary_lm.train_extractor({"home": [path]}, tmp_path / "m", options=options, on_event=events.append)
    assert (done["finish"], done["steps"]) == ("completed", 80) and done["tasks"]["home"]["clean"]["intent"] > 0.8
    assert sum(event["event"] == "step" for event in events) == 80
    extractor = ternary_lm.Extractor(tmp_path / "m/export/model.gguf")
    found = extractor.extract("switch on the light in the cellar")
    assert found.intent == "on" and extractor.tasks[0]["name"] == "home"
    assert (tmp_path / "m/report.md").read_text().startswith("# Figures")


def test_options_that_cannot_be(tmp_path, stories_file):
    with pytest.raises(ternary_lm.OptionError, match="stepz"):
        ternary_lm.train([stories_file], tmp_path / "m", vocabulary=300, options={"stepz": 1})
    with pytest.raises(ternary_lm.OptionError, match="steps is 0"):
        ternary_lm.train([stories_file], tmp_path / "m", vocabulary=300, options={"steps": 0})
    with pytest.raises(ternary_lm.OptionError, match="give tokenizer"):
        ternary_lm.train([stories_file], tmp_path / "n")
    with pytest.raises(ternary_lm.TrainingError, match="none.txt"):
        ternary_lm.train([tmp_path / "none.txt"], tmp_path / "o", vocabulary=300)
    with pytest.raises(TypeError):
        ternary_lm.train("stories.txt", tmp_path / "p", vocabulary=300)
    with pytest.raises(TypeError, match="unknown option \"stepz\""):
        ternary_lm.train_extractor({}, tmp_path / "m", options={"stepz": 1})
    with pytest.raises(ternary_lm.OptionError, match="lr is"):
        ternary_lm.train_extractor({}, tmp_path / "m", options={"lr": "high"})
