from __future__ import annotations

from typing import Any, get_args

import pytest

from search.command.opening import optimizer_settings
from search.errors import SpaceError
from search.optimizers import TABLE, Optimizer, make
from search.settings import SearchSection
from tests.search.toy_search import OBJECTIVES, SMOOTH

NAMES = get_args(SearchSection.model_fields["optimizer"].annotation)


def made(name: str, **settings: Any) -> Optimizer:
    return make(name, SMOOTH, objectives=OBJECTIVES, population=4, seed=1, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_n_startup_reaches_every_optimizer_that_has_it_and_no_other(name: str) -> None:
    search = SearchSection.model_validate({"optimizer": name, "n_startup": 7})
    assert name in TABLE
    told = optimizer_settings(search)
    if "n_startup" in told:
        assert told == {"n_startup": 7}
        made(name, **told)
    else:
        with pytest.raises(SpaceError, match="n_startup"):
            made(name, n_startup=7)


@pytest.mark.parametrize("name", NAMES)
def test_without_n_startup_an_optimizer_keeps_its_own_number(name: str) -> None:
    assert "n_startup" not in optimizer_settings(SearchSection.model_validate({"optimizer": name}))
