"""Values of a schema, and what is refused."""

import json

import pytest
from pydantic import BaseModel, Field

import ternary_lm

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 30},
    },
    "required": ["kind", "age"],
}


class Animal(BaseModel):
    kind: str = Field(pattern="^(cat|dog)$")
    age: int = Field(ge=0, le=30)


def test_values_of_a_schema(stories):
    for schema in (SCHEMA, json.dumps(SCHEMA)):
        for seed in range(4):
            value = stories.json("Ben has a pet. ", schema, seed=seed, max_tokens=80)
            assert value["kind"] in ("cat", "dog") and 0 <= value["age"] <= 30 and list(value) == ["kind", "age"]
    text = stories.generate("Ben has a pet. ", json_schema=SCHEMA, temperature=0.0, max_tokens=80)
    assert json.loads(text) == stories.json("Ben has a pet. ", SCHEMA, temperature=0.0, max_tokens=80)


def test_a_class_makes_the_value(stories):
    animal = stories.session().json("Ben has a pet. ", Animal, max_tokens=80)
    assert isinstance(animal, Animal) and animal.kind in ("cat", "dog")


def test_a_value_that_does_not_fit_is_an_error(stories):
    with pytest.raises(ternary_lm.Unfinished, match="before it satisfied its constraint") as error:
        stories.json("Ben has a pet. ", SCHEMA, temperature=0.0, max_tokens=3)
    assert error.value.text.startswith("{") and error.value.finish_reason == "length"
    assert isinstance(error.value, ternary_lm.ConstraintError) and isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"json_schema": {"type": "nothing"}}, ternary_lm.ConstraintError, "the constraint cannot be used"),
        ({"json_schema": "{"}, ternary_lm.ConstraintError, "not JSON"),
        ({"json_schema": {"a": object()}}, ternary_lm.ConstraintError, "not JSON"),
        ({"regex": "("}, ternary_lm.ConstraintError, "the constraint cannot be used"),
        ({"regex": "a{100000}{100000}"}, ternary_lm.ConstraintError, "limit"),
        ({"regex": "a", "grammar": 'start: "a"'}, ternary_lm.OptionError, "one constraint"),
        ({"regex": "a", "stop": "b"}, ternary_lm.ConstraintError, "stop text"),
        ({"temperature": -1.0}, ternary_lm.OptionError, "temperature is -1"),
        ({"top_p": 2.0}, ValueError, "top_p is 2"),
        ({"temperature": "hot"}, TypeError, "option temperature"),
        ({"max_tokens": -1}, TypeError, "option max_tokens"),
        ({"max_token": 1}, TypeError, "unknown option \"max_token\""),
        ({"stop": 3}, TypeError, "stop: expected"),
    ],
)
def test_options_that_cannot_be(stories, options, kind, words):
    with pytest.raises(kind, match=words):
        stories.generate("Once", **options)


def test_options_of_none_are_not_given(stories):
    expected = stories.generate("Once", max_tokens=5, seed=3)
    assert stories.generate("Once", max_tokens=5, seed=3, temperature=None, stop=None, regex=None) == expected
