"""How much of the real thing a trial trains: a share of width, depth and training rows. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainables.config import StrictModel

ScaleName = Literal["tiny", "small", "full"]


class Fidelity(StrictModel):
    """A scale of SEARCH-16; what is trained at one scale is compared with trials of the same scale only.

    Validation rows and scored timestamps stay those of the whole fold, so that scales can be told apart, and promoted
    trials be paired with what they were before.
    """

    scale: ScaleName = "full"
    """Name of the scale, recorded with the results."""
    width_frac: float = Field(default=1.0, gt=0, le=1)
    """Share of the model's width, as near as the family's rules allow."""
    depth_frac: float = Field(default=1.0, gt=0, le=1)
    """Share of the model's layers, as near as the family's rules allow."""
    data_frac: float = Field(default=1.0, gt=0, le=1)
    """Share of a fold's training rows: the last ones, which are nearest to what is scored."""


SCALES: dict[ScaleName, Fidelity] = {
    "tiny": Fidelity(scale="tiny", width_frac=0.25, depth_frac=0.25, data_frac=0.25),
    "small": Fidelity(scale="small", width_frac=0.5, depth_frac=0.5, data_frac=0.5),
    "full": Fidelity(),
}
"""Shares of each scale. The specification names the scales and leaves their numbers open."""
