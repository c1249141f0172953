"""One session replayed live: stream of features, scaler and model's step against the same in one piece (EXEC-3).

The meta-forecaster and the fuzzy rules have no live form here.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.trainables.features.market_fixture import make_market
from trainables.condor.config import CondorConfig
from trainables.condor.model import CondorModel
from trainables.features.blocks import sliced
from trainables.features.normalisers import Normaliser, fit_normaliser
from trainables.features.registry import compute
from trainables.features.settings import FeatureSettings
from trainables.features.streaming import Stream

SETTINGS = FeatureSettings(hurst_window=64, vol_regime_n=40, realised_n=40, kappa_span=16)
SESSION = 120


@pytest.mark.requirement("EXEC-3")
@pytest.mark.parametrize("switches", [{}, {"vol_gated_attn": True}, {"ssm_variant": "mamba1"}], ids=str)
def test_a_session_bar_by_bar_gives_the_features_to_the_bit_and_the_outputs_to_a_hundred_thousandth(switches) -> None:
    market = make_market(sessions=8, per_session=SESSION)
    whole, names = compute("condor52", market, SETTINGS)
    today = len(market) - SESSION
    past = whole[:today][np.isfinite(whole[:today]).all(axis=1)]
    scaler = Normaliser.from_json(fit_normaliser("mad", past, names, clip=10.0).to_json())
    config = CondorConfig(
        d_model=16,
        n_layers=4 if "vol_gated_attn" in switches else 2,
        headdim=8,
        d_state=4,
        expand=1,
        lookback=SESSION,
        feature_schema=52,
        dropout=0.0,
        **switches,
    )
    torch.manual_seed(0)
    model = CondorModel(config, names).eval()

    stream = Stream("condor52", SETTINGS)
    stream.extend(sliced(market, 0, today))
    state, live, outputs = model.first_state(1), [], []
    with torch.no_grad():
        for t in range(today, len(market)):
            row = stream.push(sliced(market, t, t + 1))
            live.append(scaler.apply(row[None]))
            if np.isfinite(row).all():
                found, state = model.step(torch.from_numpy(live[-1]), state)
                outputs.append(found)
        batch = scaler.apply(whole)[today:]
        np.testing.assert_array_equal(np.concatenate(live), batch)
        complete = np.flatnonzero(np.isfinite(batch).all(axis=1))
        assert len(complete) == len(outputs) > 40
        windows = torch.from_numpy(batch[complete])[None]
        for k in (0, 7, len(outputs) // 2, len(outputs) - 1):
            for name, expected in model(windows[:, : k + 1]).items():
                torch.testing.assert_close(outputs[k][name], expected, atol=1e-5, rtol=1e-5)
