"""The sections of a space file, and the schema for editors."""

import json

import pytest
from pydantic import BaseModel, ValidationError

from search.parameters import StrictModel
from search.settings import (
    Asha,
    BudgetSection,
    FidelitySection,
    NoStopping,
    Objective,
    ResourcesSection,
    SearchSection,
    SpaceFile,
    TrackingSection,
    json_schema,
    space_file_model,
)


class Data(StrictModel):
    source: str = "arch"
    """Where from."""


class Folds(StrictModel):
    train_months: int = 6
    """How long."""
    max_folds: int | None = None
    """How many."""


MODEL = space_file_model(Data, Folds, ("condor", "mlp"))
MINIMAL = {"family": "mlp", "parameters": {"lr": 0.1}, "budget": {"trials": 3}}


def test_a_minimal_file_takes_every_default():
    file = MODEL.model_validate_json(json.dumps(MINIMAL))
    assert isinstance(file, SpaceFile)
    assert file.data == Data()
    assert file.folds == Folds()
    assert file.search == SearchSection()
    assert file.search.stopping == Asha(eta=3, min_folds=1)
    assert [o.metric for o in file.objectives] == ["val_loss"]
    assert file.problems() == ()


@pytest.mark.parametrize(
    "section", [SearchSection, FidelitySection, Objective, BudgetSection, ResourcesSection, TrackingSection, SpaceFile]
)
def test_sections_are_frozen_strict_closed_and_documented(section):
    configuration = section.model_config
    assert configuration["frozen"]
    assert configuration["strict"]
    assert configuration["extra"] == "forbid"
    assert configuration["allow_inf_nan"] is False
    assert all(field.description for field in section.model_fields.values())


def test_only_the_given_families_are_known():
    with pytest.raises(ValidationError, match="'condor' or 'mlp'"):
        MODEL.model_validate_json(json.dumps(MINIMAL | {"family": "grok"}))


def test_the_stopping_rule_is_told_by_its_name():
    def section(**stopping) -> SearchSection:
        return SearchSection.model_validate_json(json.dumps({"stopping": stopping}))

    assert section(rule="none").stopping == NoStopping()
    assert section(rule="asha", eta=4).stopping == Asha(eta=4)
    with pytest.raises(ValidationError):
        section(rule="none", eta=3)


@pytest.mark.parametrize(
    ("metric", "direction"),
    [("val_loss", "minimize"), ("ic", "maximize"), ("crps", "minimize"), ("flatness", "minimize")],
)
def test_objectives_know_which_way_is_better(metric, direction):
    assert Objective(metric=metric, direction=direction).direction == direction
    wrong = {"minimize": "maximize", "maximize": "minimize"}[direction]
    with pytest.raises(ValidationError, match=f"expected direction {direction} for {metric}"):
        Objective(metric=metric, direction=wrong)


def test_an_objective_twice_is_a_problem():
    twice = [{"metric": "val_loss", "direction": "minimize"}] * 2
    file = MODEL.model_validate_json(json.dumps(MINIMAL | {"objectives": twice}))
    (problem,) = file.problems()
    assert problem.path == ("objectives", 1, "metric")


def test_no_objective_is_refused():
    with pytest.raises(ValidationError, match="at least 1 item"):
        MODEL.model_validate_json(json.dumps(MINIMAL | {"objectives": []}))


def definitions() -> dict:
    return json_schema(MODEL)["$defs"]


def test_the_schema_completes_every_kind_of_parameter():
    schema = json_schema(MODEL)
    branches = schema["properties"]["parameters"]["additionalProperties"]["oneOf"]
    kinds = [branch["$ref"].rsplit("/")[-1] for branch in branches if "$ref" in branch]
    assert kinds == ["Float", "Int", "Choice", "Ordered", "Fixed"]
    for name in kinds:
        kind = definitions()[name]
        assert kind["properties"]["type"]["const"] == name.lower()
        assert "type" in kind["required"]
        assert "when" in kind["properties"]
        assert kind["additionalProperties"] is False
    assert {"low", "high", "log", "step", "default"} <= definitions()["Float"]["properties"].keys()


def test_the_schema_describes_every_key():
    for definition in (json_schema(MODEL), *definitions().values()):
        for name, field in definition.get("properties", {}).items():
            assert field.get("description") or "const" in field or "$ref" in field, name


def test_in_a_profile_nothing_is_required():
    profile = definitions()["Profile"]
    assert profile["properties"].keys() == SpaceFile.model_fields.keys() - {"profiles"}
    assert profile["properties"]["budget"]["$ref"] == "#/$defs/BudgetSectionChanges"
    assert "required" not in definitions()["BudgetSectionChanges"]
    assert "required" in definitions()["BudgetSection"]


def test_every_reference_of_the_schema_has_its_definition():
    text = json.dumps(json_schema(MODEL))
    targets = {part.split('"')[0] for part in text.split("#/$defs/")[1:]}
    assert targets <= definitions().keys()


def test_the_schema_is_the_same_every_time():
    assert json.dumps(json_schema(MODEL)) == json.dumps(json_schema(space_file_model(Data, Folds, ("condor", "mlp"))))
    assert issubclass(MODEL, BaseModel)
