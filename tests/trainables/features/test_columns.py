import json

import numpy as np
import pytest

from tests.trainables.features.market_fixture import make_market
from trainables.data.store import MANIFEST, FeatureStore
from trainables.features.columns import columns_of
from trainables.features.registry import compute, rows_of
from trainables.features.settings import FeatureSettings

SETTINGS = FeatureSettings()


@pytest.mark.requirement("DATA-29")
@pytest.mark.parametrize("schema", ["condor52", "nq24", "scaling30", "scalper"])
def test_the_schema_beside_stored_features_has_their_order(tmp_path, schema):
    market = make_market(sessions=2, bar_seconds=1 if schema == "scalper" else 60)
    features, names = compute(schema, market, SETTINGS, {})
    columns = columns_of(schema, names, SETTINGS, market.bars_per_session)
    stored = FeatureStore(tmp_path).get("k", lambda: {"features": features}, {"columns": columns})["features"]
    written = json.loads((tmp_path / "k" / MANIFEST).read_text())["meta"]["columns"]
    rows = rows_of(schema, ())
    assert [column["name"] for column in written] == [f"{row.family}.{row.name}" for row in rows]
    assert [column["group"] for column in written] == [row.group for row in rows]
    assert [column["lookback"] for column in written] == [
        row.lookback(SETTINGS, market.bars_per_session) for row in rows
    ]
    assert all(column["known"] for column in written)
    for column, (name, values) in enumerate(zip(names, features.T, strict=True)):
        assert written[column]["name"].endswith(f".{name}")
        np.testing.assert_array_equal(stored[:, column], values)


@pytest.mark.parametrize("names", [("close", "no_such"), ("close", "close")])
def test_unknown_and_double_columns_are_refused(names):
    with pytest.raises(ValueError, match="expected features of condor52, each once, found"):
        columns_of("condor52", names, SETTINGS, 390)
