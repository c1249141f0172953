from __future__ import annotations

from typing import Any, get_args

import pytest

from search.command.opening import optimizer_settings
from search.errors import SpaceError
from search.optimizers import TABLE, Optimizer, make
from search.settings import SETTING_OF, SearchSection
from tests.search.toy_search import OBJECTIVES, SMOOTH

NAMES = get_args(SearchSection.model_fields["optimizer"].annotation)


def made(name: str, **settings: Any) -> Optimizer:
    return make(name, SMOOTH, objectives=OBJECTIVES, population=4, seed=1, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_n_startup_is_a_setting_of_just_the_optimizers_that_take_it(name: str) -> None:
    search = SearchSection.model_validate({"optimizer": name, "n_startup": 7})
    assert name in TABLE
    told = optimizer_settings(search)
    if name in SETTING_OF["n_startup"]:
        assert told == {"n_startup": 7}
        made(name, **told)
    else:
        with pytest.raises(SpaceError, match=rf"search\.optimizer: {name} .* found n_startup; drop"):
            made(name, n_startup=7)


@pytest.mark.parametrize(
    ("name", "known"),
    [("random", "none"), ("tpe", "n_startup, n_candidates"), ("evolutionary_bayesian", "n_startup, n_elites, .*")],
)
def test_an_unknown_setting_is_refused_with_those_that_there_are(name: str, known: str) -> None:
    words = rf"{name} refuses its settings: expected settings among {known}, found n_start; drop them"
    with pytest.raises(SpaceError, match=words):
        made(name, n_start=7)


@pytest.mark.parametrize("name", NAMES)
def test_without_n_startup_an_optimizer_keeps_its_own_number(name: str) -> None:
    assert "n_startup" not in optimizer_settings(SearchSection.model_validate({"optimizer": name}))
