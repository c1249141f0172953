"""Figures of what the leader's evidence says: its calibration, and its rank correlation by horizon and over time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import polars as pl

from analysis import naive
from analysis.measures import calibration, ic
from analysis.measures.ic import IcEstimate
from analysis.reports.plots import FRONT, LEADING, REST, figure_of

N_BINS = 20
MOST_HORIZONS = 6
SPAN = 1.645
"""Normal quantile of a central 90 % interval."""


def calibrations(evidence: pl.DataFrame) -> go.Figure | None:
    """Plot the PIT histogram and the coverage of central intervals for each horizon with a predicted scale.

    Bars at 1 and points on the diagonal are perfect. None where no horizon has a scale.
    """
    pits = {h: _pit(evidence, h) for h in naive.horizons(evidence.columns) if f"scale_{h}" in evidence.columns}
    pits = {h: p for h, p in list(pits.items())[:MOST_HORIZONS] if len(p) >= N_BINS}
    if not pits:
        return None
    figure = figure_of(height=340, rows=1, cols=2, titles=("where outcomes fell in the forecast", "coverage"))
    levels = np.linspace(0.05, 0.95, 19)
    edges = np.linspace(0, 1, N_BINS + 1)
    for k, (horizon, pit) in enumerate(pits.items()):
        colour = PALETTE[k % len(PALETTE)]
        density = np.histogram(pit, edges)[0] / len(pit) * N_BINS
        figure.add_scatter(
            x=edges, y=np.r_[density, density[-1]], mode="lines", line={"shape": "hv", "color": colour, "width": 1.8},
            name=horizon, legendgroup=horizon, row=1, col=1,
            hovertemplate="%{x:.2f}: %{y:.2f}<extra>" + horizon + "</extra>",
        )  # fmt: skip
        inside = [float((np.abs(pit - 0.5) <= level / 2).mean()) for level in levels]
        figure.add_scatter(
            x=levels, y=inside, mode="lines+markers", marker={"size": 4}, line={"color": colour, "width": 1.8},
            name=horizon, legendgroup=horizon, showlegend=False, row=1, col=2,
            hovertemplate="stated %{x:.0%}, seen %{y:.1%}<extra>" + horizon + "</extra>",
        )  # fmt: skip
    figure.add_scatter(x=[0, 1], y=[1, 1], mode="lines", line=IDEAL, name="calibrated", row=1, col=1)
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=IDEAL, showlegend=False, row=1, col=2)
    figure.update_xaxes(title_text="probability of a lower outcome", row=1, col=1)
    figure.update_yaxes(title_text="density", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title_text="stated probability of the central interval", tickformat=".0%", row=1, col=2)
    figure.update_yaxes(title_text="share inside", tickformat=".0%", row=1, col=2)
    return figure


def ic_by_horizon(estimates: Mapping[str, IcEstimate]) -> go.Figure | None:
    """Plot the rank correlation of each horizon with a 90 % interval; None without any."""
    if not estimates:
        return None
    figure = figure_of(height=340, xaxis_title="horizon", yaxis_title="rank correlation, 90 % interval")
    values = list(estimates.values())
    figure.add_scatter(
        x=list(estimates),
        y=[e.value for e in values],
        error_y={"array": [SPAN * (e.error or 0.0) for e in values], "thickness": 1.4, "width": 5},
        mode="markers",
        marker={"size": 10, "color": LEADING},
        customdata=[[e.n_rows, e.n_independent] for e in values],
        hovertemplate="%{x}: %{y:+.4f}, %{customdata[0]} rows (%{customdata[1]:.0f} independent)<extra></extra>",
    )
    figure.add_hline(y=0, line={"color": REST, "width": 1})
    figure.update_xaxes(type="category")
    return figure


def ic_over_time(evidence: pl.DataFrame) -> go.Figure | None:
    """Plot the rank correlation of each fold at the shortest horizon with a 90 % interval; None where undefined."""
    known = naive.horizons(evidence.columns)
    if not known:
        return None
    horizon = known[0]
    points = []
    for (fold,), rows in evidence.group_by("fold", maintain_order=True):
        x, y = (rows[f"{what}_{horizon}"].to_numpy().astype(float) for what in ("prediction", "target"))
        estimate = ic.estimate(x, y, horizon_rows=naive.horizon_rows(rows["timestamp"], horizon))
        if estimate is not None:
            middle = int(np.median(naive.nanoseconds(rows["timestamp"])))
            points.append((np.datetime64(middle, "ns").astype("datetime64[s]").item(), fold, estimate))
    if not points:
        return None
    figure = figure_of(height=340, yaxis_title=f"rank correlation at {horizon}, 90 % interval")
    signs = [FRONT if e.value < 0 else LEADING for _, _, e in points]
    figure.add_scatter(
        x=[when for when, _, _ in points],
        y=[e.value for _, _, e in points],
        error_y={"array": [SPAN * (e.error or 0.0) for _, _, e in points], "thickness": 1.2, "width": 4},
        mode="lines+markers",
        line={"color": REST, "width": 1, "dash": "dot"},
        marker={"size": 9, "color": signs},
        customdata=[[fold, e.n_rows] for _, fold, e in points],
        hovertemplate="fold %{customdata[0]}: %{y:+.4f}, %{customdata[1]} rows<extra></extra>",
    )
    figure.add_hline(y=0, line={"color": REST, "width": 1})
    return figure


PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
IDEAL = {"color": REST, "width": 1.5, "dash": "dash"}


def _pit(evidence: pl.DataFrame, horizon: str) -> np.ndarray:
    columns = [f"{what}_{horizon}" for what in ("target", "prediction", "scale")]
    target, mean, scale = (evidence[c].to_numpy().astype(float) for c in columns)
    known = np.isfinite(target) & np.isfinite(mean) & np.isfinite(scale) & (scale > 0)
    return calibration.pit_gaussian(target[known], mean[known], scale[known]) if known.any() else np.empty(0)
