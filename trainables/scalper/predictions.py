"""What the scalper says at a second, in units of the market, and the position that makes (SCALP-7, SCALP-8)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.scalper.config import ScalperConfig
from trainables.scalper.losses import class_probabilities
from trainables.scalper.model import Outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """The prediction record, (n,) each (SCALP-7).

    Attributes:
        direction: -1 down, 0 flat, 1 up: the most probable class.
        confidence: Its probability, 0..1.
        predicted_move: Ticks: that of the regression, else X (p_up - p_down).
        volatility: Ticks over the horizon: that of the hybrid, else the mean of the training rows; NaN with neither.
        exit_long, exit_short: Probability that leaving such a position now is right; NaN without that head.
    """

    direction: NDArray[np.int8]
    confidence: NDArray[np.float32]
    predicted_move: NDArray[np.float32]
    volatility: NDArray[np.float32]
    exit_long: NDArray[np.float32]
    exit_short: NDArray[np.float32]


def predictions(config: ScalperConfig, outputs: Outputs) -> Predictions:
    """Turn a model's outputs into records; the config is that of the trained model, with its fold's scales."""
    with torch.no_grad():
        p_n3 = class_probabilities(config, outputs)
        confidence, chosen = p_n3.max(-1)
        if "move" in outputs:
            move = outputs["move"] * (config.move_scale_ticks or 1.0)
        else:
            move = config.ticks_x * (p_n3[:, 2] - p_n3[:, 0])
        unknown = torch.full_like(confidence, math.nan)
        usual = config.volatility_scale_ticks or math.nan
        volatility = outputs["volatility"] * usual if "volatility" in outputs else torch.full_like(confidence, usual)
        leave = outputs["exit"].sigmoid().T if "exit" in outputs else (unknown, unknown)
    arrays = (each.float().cpu().numpy() for each in (confidence, move, volatility, *leave))
    names = ("confidence", "predicted_move", "volatility", "exit_long", "exit_short")
    return Predictions(direction=(chosen.cpu().numpy() - 1).astype(np.int8), **dict(zip(names, arrays, strict=True)))


def position_size(config: ScalperConfig, volatility_ticks: float) -> int:
    """Return floor(risk per trade / (volatility x value of a tick)) contracts, at most `max_contracts` (SCALP-8).

    0 for a volatility that is not known; the most where nothing moves.
    """
    if math.isnan(volatility_ticks):
        return 0
    risk_of_one = volatility_ticks * config.tick_value_usd
    if risk_of_one * config.max_contracts <= config.risk_per_trade_usd:
        return config.max_contracts
    return int(config.risk_per_trade_usd / risk_of_one)
