"""Whether a space fits a family, and whether the space files of the project fit theirs."""

import json
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from pydantic import Field, model_validator

from search.parameters import StrictModel
from search.settings import json_schema, space_file_model
from search.space import Choice, Float, Int, Ordered, Space
from search.space_file import Document, load
from search.validity import check_space, infeasible_reason
from search.yaml_tree import read_text
from trainables.catalogue import CONFIGS, config_class
from trainables.data.config import DataConfig, FoldsConfig

SPACES = Path(__file__).parents[2] / "spaces"
MODEL = space_file_model(DataConfig, FoldsConfig, tuple(CONFIGS))


class Toy(StrictModel):
    lr: float = Field(default=1e-3, gt=0, le=1)
    width: int = Field(default=8, ge=1)
    heads: int = 2
    windows: tuple[int, ...] = (5, 10)

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.width % self.heads:
            raise ValueError(f"heads: expected a divisor of {self.width}, found {self.heads}")
        return self


def nowhere() -> Document:
    return Document(tree=read_text("{}", "x.yaml"), content={})


def check(parameters, enqueue=(), **options):
    return check_space(Space(parameters), Toy, enqueue, nowhere(), **options)


def test_a_fitting_space_has_no_problem():
    assert check({"lr": Float(low=1e-4, high=1.0), "windows": (1, 2)}, [{"lr": 0.5}], trials=3) == ((), ())


@pytest.mark.requirement("SEARCH-12")
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (Float(low=0, high=1), "low"),
        (Float(low=0.5, high=2), "high"),
        (Choice(choices=(0.5, "x")), "choices.1"),
        (Choice(choices=(0.5, 3.0, None)), "choices.1"),
    ],
)
def test_ends_and_choices_must_be_accepted_by_the_field(kind, key):
    problems, _ = check({"lr": kind})
    assert problems[0].startswith(f"x.yaml:1:1 parameters.lr.{key}: expected a value that Toy takes (")


def test_a_float_for_a_field_of_whole_numbers_is_refused():
    problems, _ = check({"width": Float(low=1, high=8)})
    assert "parameters.width.low: expected a value that Toy takes (Input should be a valid integer" in problems[0]


def test_fixed_lists_stand_for_tuples():
    assert check({"windows": (1, 2, 3), "lr": Float(low=0.1, high=0.2)})[0] == ()
    assert "parameters.windows: expected a value that Toy takes" in check({"windows": (1, "x")})[0][0]


@pytest.mark.requirement("SEARCH-11")
def test_rules_of_the_family_are_asked_with_defaults_for_what_the_space_does_not_mention():
    assert infeasible_reason({"width": 9}, Toy) == "heads: expected a divisor of 9, found 2"
    assert infeasible_reason({"width": 9, "heads": 3}, Toy) is None
    assert infeasible_reason({"lr": 2.0, "width": "x"}, Toy) == (
        "lr: Input should be less than or equal to 1; width: Input should be a valid integer"
    )


def test_mostly_infeasible_spaces_warn_with_the_reason():
    _, warnings = check({"width": Ordered(choices=(9, 11, 13, 16)), "lr": Float(low=0.1, high=0.2)})
    assert "of drawn configs are infeasible; most often: heads: expected a divisor" in warnings[0]


def test_the_check_is_the_same_every_time():
    parameters = {"width": Int(low=1, high=50), "heads": Int(low=1, high=9)}
    assert check(parameters) == check(parameters)


FILES = sorted(path.name for path in SPACES.glob("*.yaml"))


def profiles(name: str) -> list[tuple[str, str | None]]:
    tree = read_text((SPACES / name).read_text(), name)
    return [(name, None), *((name, profile) for profile in tree.value["profiles"].value)]


@pytest.mark.requirement("SEARCH-12")
@pytest.mark.parametrize(("name", "profile"), [row for name in FILES for row in profiles(name)])
def test_every_space_file_fits_its_family(name, profile):
    file, document = load(SPACES / name, model=MODEL, profile=profile)
    family = config_class(file.family)
    space = file.space()
    problems, warnings = check_space(
        space, family, file.search.enqueue, document, optimizer=file.search.optimizer, trials=file.budget.trials,
        allow_partial=file.search.allow_partial,
    )  # fmt: skip
    assert problems == ()
    assert warnings == ()
    assert infeasible_reason(space.complete({}), family) is None


@pytest.mark.parametrize("name", FILES)
def test_every_space_file_is_valid_for_an_editor(name):
    tree = read_text((SPACES / name).read_text(), name).plain()
    schema = json.loads((SPACES / "schema.json").read_text())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(tree)] == []
    varied = next(kind for kind in tree["parameters"].values() if isinstance(kind, dict))
    varied |= {"hgih": 3}
    assert list(Draft202012Validator(schema).iter_errors(tree))


def test_the_schema_in_the_folder_is_that_of_the_models():
    assert json.loads((SPACES / "schema.json").read_text()) == json_schema(MODEL)


@pytest.mark.requirement("SEARCH-3")
def test_the_recommended_grid_comes_first():
    file, _ = load(SPACES / "condor.yaml", model=MODEL)
    space = file.space()
    rows = [space.complete(partial) for partial in file.search.enqueue]
    assert [(r["d_model"], r["n_layers"], r["lookback"], r["lr"]) for r in rows] == [
        (1024, 32, 128, 1e-4),
        (1024, 32, 256, 1e-4),
        (1024, 32, 128, 5e-5),
        (512, 24, 128, 1e-4),
        (2048, 48, 128, 1e-4),
    ]


@pytest.mark.requirement("SEARCH-6")
def test_lookback_is_searched_over_the_documented_choices():
    file, _ = load(SPACES / "condor.yaml", model=MODEL)
    assert file.space().reach()["lookback"] == (60, 120, 128, 240, 256, 390, 512)


@pytest.mark.requirement("SEARCH-10")
def test_modules_of_the_condor_bring_their_parameters_only_when_on():
    file, _ = load(SPACES / "condor.yaml", model=MODEL)
    space = file.space()
    rng = np.random.default_rng(0)
    modules = {
        "moe": ({"topk"}, ("moe_k", "moe_aux_alpha", "gate_scale")),
        "loss": ({"composite"}, ("lambda1", "lambda4", "seq_per_batch")),
        "trajectory": ({True}, ("gru_hidden", "w_traj", "diffusion")),
        "tda": ({True}, ("tda_dim", "tda_delay", "tda_window")),
        "feature_schema": ({32, 52}, ("ewma_alpha", "curvature")),
        "vol_gated_attn": ({True}, ("vga_heads",)),
    }
    for config in (space.sample(rng) for _ in range(100)):
        for parent, (on, children) in modules.items():
            assert all((child in config) == (config[parent] in on) for child in children)
