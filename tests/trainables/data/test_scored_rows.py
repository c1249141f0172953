"""Whatever its look-back, schema or genes, a trial is scored on the timestamps of the search (SEARCH-14, SEARCH-6)."""

from __future__ import annotations

import numpy as np
import pytest

from trainables.catalogue import config_class, family
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.folds import fold_rows, plan_folds
from trainables.data.loader import load_times

DATA = DataConfig(start="2006-01-01", end="2014-01-01", iv_initial_sessions=252)
FOLDS = FoldsConfig(train_months=48, validation_months=6, test_months=6, max_folds=2)
TINY = {"d_model": 8, "n_layers": 1, "headdim": 4, "d_state": 2}
SEARCHES = {
    "condor": (
        {"lookback": (4, 60), "feature_schema": (24, 32, 52), "momentum_n": (5, 50)},
        [
            {"lookback": 4, "feature_schema": 24, **TINY},
            {"lookback": 60, "feature_schema": 52, "momentum_n": 50, **TINY},
            {"lookback": 20, "feature_schema": 32, "curvature": "menger_scaled", **TINY},
        ],
    ),
    "mlp": (
        {"feature_stage": ("10", "20"), "label_horizon": (1, 5)},
        [
            {"feature_stage": "10", "label_horizon": 1},
            {"feature_stage": "20", "label_horizon": 5},
            {"feature_stage": "10", "label_horizon": 5, "levels_mode": "raw"},
        ],
    ),
}


@pytest.mark.requirement("SEARCH-6")
@pytest.mark.requirement("SEARCH-14")
@pytest.mark.parametrize("name", SEARCHES)
def test_timestamps_are_those_of_the_search(name, tmp_path):
    one = family(name)
    reach, points = SEARCHES[name]
    windows, scored = plan_folds(load_times(DATA, FOLDS), FOLDS).windows, []
    for point in points:
        config = config_class(name)(**point)
        dataset = one.dataset(config, DATA, FOLDS, reach, tmp_path)
        assert isinstance(dataset.features, np.memmap)
        longest = config.scored_lookback(reach)
        rows = [fold_rows(w, dataset, lookback=config.lookback, scored_lookback=longest).validation for w in windows]
        scored.append(np.concatenate([dataset.known_time[r] for r in rows]))
    assert len(scored[0]) > 100
    for other in scored[1:]:
        np.testing.assert_array_equal(other, scored[0])
