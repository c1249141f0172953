"""The prediction record and the size of a position."""

import numpy as np
import pytest
import torch

from trainables.scalper.config import ScalperConfig
from trainables.scalper.predictions import position_size, predictions

LOGITS = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])


@pytest.mark.requirement("SCALP-7")
def test_classes_become_directions_and_probabilities_confidence():
    config = ScalperConfig(ticks_x=2, volatility_scale_ticks=4.0)
    said = predictions(
        config, {"direction": LOGITS, "volatility": torch.tensor([0.5, 1.0, 2.0]), "exit": torch.zeros(3, 2)}
    )
    p = torch.softmax(LOGITS, -1).numpy()
    assert said.direction.tolist() == [-1, 0, 1]
    np.testing.assert_allclose(said.confidence, p.max(1), rtol=1e-6)
    np.testing.assert_allclose(said.predicted_move, 2 * (p[:, 2] - p[:, 0]), atol=1e-6)
    assert said.volatility.tolist() == [2.0, 4.0, 8.0]
    assert said.exit_long.tolist() == said.exit_short.tolist() == [0.5] * 3
    assert {a.dtype.name for a in (said.confidence, said.predicted_move, said.volatility)} == {"float32"}


@pytest.mark.requirement("SCALP-7")
def test_a_regression_gives_the_move_itself():
    config = ScalperConfig(approach="regression", move_scale_ticks=5.0, volatility_scale_ticks=3.0)
    said = predictions(config, {"move": torch.tensor([-2.0, 0.0, 1.0])})
    assert said.predicted_move.tolist() == [-10.0, 0.0, 5.0]
    assert said.direction[0] == -1
    assert said.direction[2] == 1
    assert said.volatility.tolist() == [3.0] * 3
    assert ((said.confidence >= 0) & (said.confidence <= 1)).all()
    unfitted = predictions(ScalperConfig(approach="regression"), {"move": torch.zeros(1)})
    assert np.isnan(unfitted.volatility).all()


@pytest.mark.requirement("SCALP-8")
def test_position_doubles_when_volatility_halves():
    config = ScalperConfig(risk_per_trade_usd=100.0, tick_value_usd=1.25, max_contracts=50)
    assert position_size(config, 8.0) == 10
    assert position_size(config, 4.0) == 20
    assert position_size(config, 9.0) == 8  # 8.9 contracts
    assert position_size(config, 0.1) == position_size(config, 0.0) == 50
    assert position_size(config, 1000.0) == position_size(config, float("nan")) == 0
