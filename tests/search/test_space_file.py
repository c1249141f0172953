"""From text to a checked file: places, profiles, overrides, and the resolved file."""

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import SpaceError
from search.parameters import StrictModel
from search.settings import SpaceFile, space_file_model
from search.space import Problem
from search.space_file import load
from search.yaml_tree import read_text
from search.yaml_writer import write_yaml


class Data(StrictModel):
    source: str = "arch"
    scale: float = 1.0


class Folds(StrictModel):
    train_months: int = 6
    max_folds: int | None = None


MODEL = space_file_model(Data, Folds, ("condor", "mlp"))

TEXT = """\
family: condor
data: {source: arch, scale: 0.1}
parameters:
  moe: {type: choice, choices: [none, soft, topk]}
  moe_k:
    type: int
    low: 1
    high: 2
    when: {moe: topk}
  lr: {type: float, low: 1e-4, high: 1e-2, log: true, default: 1e-3}
  width: 64
search:
  n_startup: 5
  enqueue: [{lr: 2e-3}, {moe: topk}]
budget: {trials: 10, wall_minutes: 5}
profiles:
  small:
    folds: {max_folds: 3}
    parameters:
      lr: 1e-3
      moe: {type: choice, choices: [none, soft]}
      moe_k: null
    search: {enqueue: [], stopping: {rule: none}}
    budget: {trials: 2}
  wrong:
    parameters:
      lr: {type: float, low: 1, high: x}
"""


@pytest.fixture
def path(tmp_path) -> Path:
    file = tmp_path / "space.yaml"
    file.write_text(TEXT)
    return file


def problems(path, **options) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        load(path, model=MODEL, **options)
    return [p.replace(f"{path.parent}/", "") for p in caught.value.problems]


def test_a_file_becomes_a_model_and_a_document(path):
    file, document = load(path, model=MODEL)
    assert isinstance(file, SpaceFile)
    assert file.budget.trials == 10
    assert file.search.enqueue == ({"lr": 0.002}, {"moe": "topk"})
    assert list(file.space().parameters) == ["moe", "moe_k", "lr", "width"]
    assert document.content["data"] == {"source": "arch", "scale": 0.1}


def test_the_document_knows_where_everything_is(path):
    _, document = load(path, model=MODEL)

    def place(*keys):
        return document.position(keys).removeprefix(f"{path}:")

    assert place("parameters", "lr") == "10:3"
    assert place("parameters", "lr", "high") == "10:38"
    assert place("parameters", "moe_k", "when", "moe") == "9:17"
    assert place("search", "enqueue", 1, "moe") == "14:31"
    assert place("search", "optimizer") == "12:1"  # not written: its section
    lines = document.lines([Problem(("search",), "odd"), Problem(("parameters", "width"), "too small")])
    assert lines == (f"{path}:11:10 parameters.width: too small", f"{path}:12:1 search: odd")


def test_a_profile_replaces_parameters_and_lists_whole_and_merges_the_rest(path):
    file, document = load(path, model=MODEL, profile="small")
    assert file.space().reach() == {"moe": ("none", "soft"), "lr": (0.001,), "width": (64,)}
    assert file.search.enqueue == ()
    assert file.search.stopping.rule == "none"
    assert file.search.n_startup == 5
    assert (file.budget.trials, file.budget.wall_minutes) == (2, 5.0)
    assert file.folds.max_folds == 3
    assert document.position(("budget", "trials")) == f"{path}:24:22"
    assert document.position(("budget", "wall_minutes")) == f"{path}:15:36"


def test_errors_in_a_profile_are_placed_in_it(path):
    assert problems(path, profile="wrong") == [
        "space.yaml:27:39 parameters.lr.high: expected a number, found text 'x'; "
        "it is not a number: write plain decimal digits, such as 15 or 1e-3"
    ]


def test_an_unknown_profile_offers_the_nearest(path):
    assert problems(path, profile="smal") == [
        "space.yaml: --profile: expected one of small, wrong, found 'smal'; did you mean 'small'?"
    ]


@pytest.mark.parametrize("section", ["profiles: 3", "profiles: {small: 3}", "profiles: [a]"])
def test_profiles_must_be_mappings_of_sections(path, section):
    path.write_text("family: mlp\nbudget: {trials: 1}\nparameters: {}\n" + section)
    (problem,) = problems(path)
    assert re.match(r"space.yaml:4:\d+ profiles(\.small)?: expected a mapping", problem)


def test_overrides_come_last_and_are_read_like_the_file(path):
    file, document = load(
        path,
        model=MODEL,
        profile="small",
        overrides=[
            "budget.trials=1e3",
            "parameters.lr={type: float, low: 1e-5, high: 1e-3}",
            "search.seed=7",
            "data.source=no",
            "resources.threads=2",
            "budget.wall_minutes=null",
        ],
    )
    assert file.budget.trials == 1000
    assert file.budget.wall_minutes is None
    assert file.space().reach()["lr"] == (1e-5, 1e-3)
    assert (file.search.seed, file.data.source, file.resources.threads) == (7, "no", 2)
    assert document.position(("search", "seed")) == "--set search.seed"


def test_overrides_reach_into_lists_and_definitions(path):
    overrides = ["search.enqueue.0.lr=5e-3", "parameters.lr.high=0.5"]
    file, _ = load(path, model=MODEL, overrides=overrides)
    assert file.search.enqueue[0] == {"lr": 0.005}
    assert file.space().reach()["lr"] == (1e-4, 0.5)


def test_wrong_overrides_are_cited_and_come_together(path):
    assert problems(path, overrides=["nonsense", "=3", "a..b=1", "lr=017", "parameters.width.low=3", "data=[1"]) == [
        "--set nonsense: expected key=value with a dotted key, found 'nonsense'",
        "--set =3: expected key=value with a dotted key, found '=3'",
        "--set a..b=1: expected key=value with a dotted key, found 'a..b=1'",
        "--set lr: expected a number, found 017 with a leading zero; drop it, or quote the text",
        "--set parameters.width.low: expected something with a member 'low', found 64; set the whole of it",
        "--set data: expected YAML, expected ',' or ']', but got '<stream end>'",
    ]
    assert problems(path, overrides=["budget.trails=3", "serach.seed=1"]) == [
        "--set budget.trails: expected a known key, found unknown 'trails'; did you mean 'trials'?",
        "--set serach.seed serach: expected a known key, found unknown 'serach'; did you mean 'search'?",
    ]


def test_overriding_leaves_the_file_and_its_other_places_alone(path):
    load(path, model=MODEL, overrides=["budget.trials=3"])
    assert path.read_text() == TEXT
    _, document = load(path, model=MODEL, overrides=["budget.trials=3"])
    assert document.position(("budget", "wall_minutes")) == f"{path}:15:36"


@pytest.mark.parametrize("profile", [None, "small"])
def test_the_resolved_file_loads_to_the_same_again(path, tmp_path, profile):
    file, document = load(path, model=MODEL, profile=profile, overrides=["search.seed=3"])
    again = tmp_path / "resolved.yaml"
    again.write_text(document.resolved_yaml())
    second, document_again = load(again, model=MODEL)
    assert second.model_copy(update={"profiles": file.profiles}) == file
    assert second.space().fingerprint() == file.space().fingerprint()
    assert document_again.resolved_yaml() == document.resolved_yaml()
    assert "profiles" not in document.resolved_yaml()
    assert "n_startup: 5" in document.resolved_yaml()
    assert "max_failures: 3" in document.resolved_yaml()


def test_a_missing_file_offers_its_neighbour_and_a_folder_is_no_file(path, tmp_path):
    assert problems(tmp_path / "spase.yaml") == [
        f"spase.yaml: expected a space file, found none; did you mean '{path}'?".replace(f"{tmp_path}/", "")
    ]
    (problem,) = problems(tmp_path)
    assert "expected a readable file, found Is a directory" in problem


def test_a_file_that_is_too_large_is_refused(path):
    path.write_text("# " + "x" * 1_000_000)
    (problem,) = problems(path)
    assert "expected at most 1000000 bytes" in problem


SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
TRICKY = ["", "no", "null", "~", "true", "1e-3", "017", "1:30", "${X}", ".nan", "- a", "a: b", "#", "'", '"', "\u2028"]
TEXTS = st.sampled_from(TRICKY) | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(bool), inner, max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(content=st.dictionaries(TEXTS.filter(bool), VALUES, min_size=1, max_size=3))
def test_what_is_written_is_read_back_exactly(content):
    back = read_text(write_yaml(content), "x.yaml").plain()
    assert json.dumps(back) == json.dumps(content)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("abc:-[]{},#&*!|>'\"%@` \n\t01.e~?")))
def test_no_text_brings_anything_but_a_tree_or_lines_of_errors(text):
    try:
        json.dumps(read_text(text, "x.yaml").plain())
        lines = ()
    except SpaceError as error:
        lines = error.problems
    assert all(line.startswith("x.yaml") and "\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 100000), ("-1.5e+3", -1500.0), (".5", 0.5), ("1.", 1.0), ("+12", 12), ("1e0", 1),
        ("1.0", 1.0), ("9007199254740993", 9007199254740993), ("1e300", 1e300), ("-0", 0), ("0.0", 0.0),
        ("~", None), ("Null", None), ("TRUE", True), ("false", False),
        ("yes", "yes"), ("0o17", "0o17"), ("0x1F", "0x1F"), ("1_000", "1_000"), ("12:30:45", "12:30:45"),
        ("2020-01-01", "2020-01-01"), ("1e", "1e"), (".", "."), ("'1'", "1"), ("32-16", "32-16"), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value):
    (found,) = read_text(f"[{text}]", "x.yaml").plain()
    assert found == value
    assert type(found) is type(value)
    assert not isinstance(found, float) or math.copysign(1, found) == math.copysign(1, value)
