"""Figures of the report page. Colours are safe for colour-blind readers; backgrounds are left to the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from analysis.reports.leaderboard import Leaderboard
from analysis.reports.verdict import METRIC_WORDS, STATE_WORDS

LEADING, REST, FRONT = "#0072B2", "#8C8C8C", "#D55E00"
STATE_COLOURS = {
    "complete": "#0072B2",
    "stopped": "#8C8C8C",
    "paused": "#B5A642",
    "running": "#56B4E9",
    "failed": "#D55E00",
    "diverged": "#CC79A7",
    "out_of_memory": "#E69F00",
    "infeasible": "#009E73",
    "lost": "#8A6FDF",
}
MOST_BARS, MOST_COLUMNS, MOST_AXES = 30, 80, 9


def leaderboard(board: Leaderboard) -> go.Figure:
    """Plot validation loss with one standard error for the best ranked trials, best on top."""
    shown = list(board.ranked[:MOST_BARS])
    figure = figure_of(
        height=110 + 21 * len(shown), xaxis_title="validation loss, ± one standard error over folds", showlegend=True
    )
    if not shown:
        return figure
    _shade_one_error(figure, board)
    for is_indistinct, name in ((True, "within one standard error of the lowest"), (False, "further off")):
        group = [e for e in shown if e.is_indistinct is is_indistinct]
        if group:
            figure.add_scatter(
                x=[e.values["val_loss"] for e in group],
                y=[f"{e.rank}{'=' if e.is_tied else ''}  {e.trial_id}" for e in group],
                error_x={"array": [e.errors.get("val_loss", 0.0) for e in group], "thickness": 1.2, "width": 3},
                mode="markers",
                marker={"size": 8, "color": LEADING if is_indistinct else REST},
                name=name,
                hovertemplate="%{y}: %{x:.5g}<extra></extra>",
            )
    names = [f"{e.rank}{'=' if e.is_tied else ''}  {e.trial_id}" for e in shown]
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], showgrid=False)
    return figure


def fold_heat_map(board: Leaderboard, folds: pl.DataFrame, metrics: Sequence[str]) -> go.Figure:
    """Plot a metric per fold and trial as its distance to the fold's median complete trial; a menu picks the metric.

    Folds differ far more than trials do: the difference is what compares trials.
    """
    entries = [e for e in (*board.ranked, *board.unranked) if e.n_folds][:MOST_COLUMNS]
    names = [e.trial_id for e in entries]
    numbers = sorted(folds["fold"].unique().to_list())
    figure = figure_of(height=150 + 34 * len(numbers))
    shown = [m for m in metrics if m in set(folds["metric"].unique().to_list())]
    for position, metric in enumerate(shown):
        cells = {(t, f): v for t, f, v in _whole(folds, metric).select("trial_id", "fold", "value").iter_rows()}
        values = np.array([[cells.get((t, f), math.nan) for t in names] for f in numbers], dtype=float)
        reference = _fold_medians(board, folds, metric)
        middle = np.array([[reference.get(f, math.nan)] for f in numbers])
        gap = values - middle
        limit = _colour_limit(gap)
        figure.add_heatmap(
            x=names,
            y=[f"fold {f}" for f in numbers],
            z=_nullable(gap),
            customdata=_nullable(values),
            zmid=0,
            zmin=-limit,
            zmax=limit,
            # Red-blue with a grey middle: reads the same on light and dark pages.
            colorscale=[[0, "#2166AC"], [0.5, "#DADADA"], [1, "#B2182B"]],
            reversescale=metric in ("ic", "regime_accuracy"),
            xgap=1,
            ygap=1,
            visible=position == 0,
            colorbar={
                "title": {
                    "text": "from the fold's<br>median, clipped<br>at ±3 median<br>distances",
                    "font": {"size": 11},
                },
                "tickvals": [-limit, -limit / 2, 0, limit / 2, limit],
                "ticktext": [f"≤ {-limit:.2g}", f"{-limit / 2:.2g}", "0", f"{limit / 2:.2g}", f"≥ {limit:.2g}"],
                "thickness": 12,
                "len": 0.9,
            },
            hovertemplate="%{x}, %{y}: %{customdata:.5g} (%{z:+.3g})<extra></extra>",
        )
    if len(shown) > 1:
        buttons = [
            {"label": METRIC_WORDS.get(m, m), "method": "restyle", "args": [{"visible": [k == m for k in shown]}]}
            for m in shown
        ]
        figure.update_layout(
            updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}]
        )
    if 0 < len(board.ranked) < len(names):
        figure.add_vline(x=len(board.ranked) - 0.5, line={"color": REST, "width": 2})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(tickangle=-60, showgrid=False)
    return figure


def _colour_limit(gap: np.ndarray) -> float:
    """Return where colours end: three times the median distance, within which 95 % of normal gaps lie.

    A quantile of the distances themselves would be that of the outliers where a search has more than a few.
    """
    distances = np.abs(gap[np.isfinite(gap)])
    if not distances.any():
        return 1.0
    most = float(distances.max())
    return min(3 * float(np.median(distances)), most) or most


def loss_against_flatness(board: Leaderboard) -> go.Figure | None:
    """Plot flatness (relative curvature, logarithmic) against loss; None where fewer than two trials have both."""
    return _plane(board, "flatness", "relative curvature (smaller is flatter)", is_log=True)


def pareto(board: Leaderboard) -> go.Figure | None:
    """Plot IC against loss and mark the Pareto set over all criteria; None where fewer than two trials have both."""
    return _plane(board, "ic", "information coefficient (larger is better)", is_log=False)


def history(board: Leaderboard, folds: pl.DataFrame) -> go.Figure:
    """Plot the loss of each trial in order of proposal by state, and the best complete one so far.

    The loss is the mean distance to the median complete trial on the folds that the trial saw: levels of folds cancel,
    so that a trial stopped early can be seen beside a complete one. Trials without a complete fold stand on the lower
    edge; far outliers are clipped to the upper one and keep their number in the label.
    """
    heights = above_median(board, folds)
    low, high = frame(np.array(list(heights.values())))
    figure = figure_of(
        height=360,
        xaxis_title="trial, in order of proposal",
        yaxis_title="loss above the median<br>complete trial, same folds",
    )
    entries = sorted((*board.ranked, *board.unranked), key=lambda e: e.number)
    for state, colour in STATE_COLOURS.items():
        group = [e for e in entries if e.state == state]
        if group:
            figure.add_scatter(
                x=[e.number for e in group],
                y=[min(heights.get(e.trial_id, low), high) for e in group],
                mode="markers",
                name=STATE_WORDS[state],
                marker={"color": colour, "size": 8, "symbol": "circle" if state == "complete" else "x-thin-open"},
                text=[
                    f"{e.trial_id}: {heights[e.trial_id]:+.4g}" if e.trial_id in heights else e.trial_id for e in group
                ],
                hovertemplate="%{text}<extra></extra>",
            )
    best = [e for e in entries if e.state == "complete" and e.trial_id in heights]
    if best:
        figure.add_scatter(
            x=[e.number for e in best],
            y=np.minimum.accumulate([heights[e.trial_id] for e in best]).tolist(),
            mode="lines",
            name="best so far",
            line={"shape": "hv", "color": LEADING, "width": 1.5},
            hoverinfo="skip",
        )
    margin = 0.05 * (high - low) or 1.0
    figure.update_yaxes(range=[low - margin, high + margin])
    return figure


def parallel_coordinates(board: Leaderboard, parameters: Sequence[str]) -> go.Figure | None:
    """Plot parameters of trials with a loss as lines, coloured by loss; None where no parameter varies.

    The axes are those parameters that vary, most strongly rank-correlated with the loss first.
    """
    entries = [e for e in (*board.ranked, *board.unranked) if e.n_folds == board.n_folds and "val_loss" in e.values]
    if len(entries) < 2:
        return None
    losses = np.array([e.values["val_loss"] for e in entries])
    axes = [(name, [e.parameters.get(name) for e in entries]) for name in parameters]
    varying = [(name, values) for name, values in axes if len({repr(v) for v in values}) > 1]
    if not varying:
        return None
    dimensions = [_axis(name, values) for name, values in varying]
    strength = [_strength(np.asarray(d["values"]), losses) for d in dimensions]
    chosen = sorted(range(len(dimensions)), key=lambda i: -strength[i])[:MOST_AXES]
    low, high = frame(losses)
    figure = figure_of(height=430)
    figure.add_parcoords(
        dimensions=[*(dimensions[i] for i in chosen), {"label": "loss", "values": losses}],
        line={
            "color": np.clip(losses, low, high),
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": {"text": "loss"}, "thickness": 12},
        },
        labelfont={"size": 12},
        tickfont={"size": 10},
    )
    figure.update_layout(margin={"l": 70, "r": 30, "t": 60, "b": 30})
    return figure


def _plane(board: Leaderboard, metric: str, title: str, *, is_log: bool) -> go.Figure | None:
    entries = [e for e in board.ranked if metric in e.values and (not is_log or e.values[metric] > 0)]
    if len(entries) < 2:  # one point shows nothing that the table does not
        return None
    figure = figure_of(height=380, xaxis_title="validation loss", yaxis_title=title)
    for is_pareto, name in ((True, "on the Pareto front of all criteria"), (False, "beaten by another trial")):
        group = [e for e in entries if e.is_pareto is is_pareto]
        if group:
            figure.add_scatter(
                x=[e.values["val_loss"] for e in group],
                y=[e.values[metric] for e in group],
                mode="markers+text",
                text=[e.trial_id if e is board.leader or (is_pareto and len(group) <= 8) else "" for e in group],
                textposition="top right",
                cliponaxis=False,
                textfont={"size": 10},
                marker={
                    "size": 9,
                    "color": FRONT if is_pareto else REST,
                    "symbol": "diamond" if is_pareto else "circle",
                },
                name=name,
                customdata=[[e.trial_id, e.rank] for e in group],
                hovertemplate="%{customdata[0]}, rank %{customdata[1]}: %{x:.5g}, %{y:.4g}<extra></extra>",
            )
    _shade_one_error(figure, board)
    if is_log:
        figure.update_yaxes(type="log")
    return figure


def above_median(board: Leaderboard, folds: pl.DataFrame) -> dict[str, float]:
    """Return the mean loss of each trial above the median complete trial on the whole folds that it saw."""
    reference = _fold_medians(board, folds, "val_loss")
    gaps: dict[str, list[float]] = {}
    for trial_id, fold, value in _whole(folds, "val_loss").select("trial_id", "fold", "value").iter_rows():
        gaps.setdefault(trial_id, []).append(value - reference[fold])
    return {t: float(np.mean(g)) for t, g in gaps.items()}


def _shade_one_error(figure: go.Figure, board: Leaderboard) -> None:
    """Mark the losses within one standard error of the lowest one: what the ranking takes as equal."""
    lowest = min(board.ranked, key=lambda e: e.values["val_loss"])
    low = lowest.values["val_loss"]
    figure.add_vrect(x0=low, x1=low + lowest.errors.get("val_loss", 0.0), fillcolor=LEADING, opacity=0.1, line_width=0)


def _axis(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return a parallel axis: numbers as they are (or their logarithm), everything else as steps; `–` for inactive."""
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    is_number = len(numbers) == sum(v is not None for v in values) and len(set(numbers)) > 6
    if not is_number:
        kinds = sorted({v for v in values if v is not None}, key=lambda v: (isinstance(v, str), v))
        places = {repr(v): k + 1 for k, v in enumerate(kinds)}
        ticks = {0: "–"} if None in values else {}
        ticks |= {k + 1: f"{v:.4g}" if isinstance(v, float) else str(v)[:18] for k, v in enumerate(kinds)}
        coded = [0 if v is None else places[repr(v)] for v in values]
        return {"label": name, "values": coded, "tickvals": list(ticks), "ticktext": list(ticks.values())}
    is_log = min(numbers) > 0 and max(numbers) / min(numbers) >= 30
    scaled = [math.nan if v is None else math.log10(v) if is_log else float(v) for v in values]
    low, high = float(np.nanmin(scaled)), float(np.nanmax(scaled))
    places_at = np.linspace(low, high, 5)
    axis = {"label": name, "tickvals": places_at, "ticktext": [f"{10**p if is_log else p:.2g}" for p in places_at]}
    if None in values:  # an inactive parameter stands on a tick of its own below the axis
        floor = low - 0.15 * (high - low)
        axis = {"label": name, "tickvals": [floor, *places_at], "ticktext": ["–", *axis["ticktext"]]}
        scaled = [floor if math.isnan(v) else v for v in scaled]
    return axis | {"values": scaled}


def _strength(values: np.ndarray, losses: np.ndarray) -> float:
    """Return how strongly the loss varies with an axis: the rank correlation ratio over up to four groups of values."""
    ranks = np.argsort(np.argsort(losses)).astype(float)
    edges = np.unique(np.quantile(values, (0.25, 0.5, 0.75))) if len(np.unique(values)) > 4 else np.unique(values)
    group = np.searchsorted(edges, values)
    total = float(ranks.var())
    between = sum((group == g).mean() * (ranks[group == g].mean() - ranks.mean()) ** 2 for g in np.unique(group))
    return float(between) / total if total else 0.0


def frame(values: np.ndarray) -> tuple[float, float]:
    """Return a range for losses that ignores outliers above: three interquartile ranges past the upper quartile."""
    if not len(values):
        return 0.0, 1.0
    lower, upper = np.quantile(values, (0.25, 0.75))
    return float(values.min()), float(min(values.max(), upper + 3 * (upper - lower) if upper > lower else values.max()))


def _whole(folds: pl.DataFrame, metric: str) -> pl.DataFrame:
    return folds.filter((pl.col("metric") == metric) & (pl.col("share") >= 1.0))


def _fold_medians(board: Leaderboard, folds: pl.DataFrame, metric: str) -> dict[int, float]:
    """Return the median of each fold over the ranked trials: the same trials on every fold; else over all."""
    rows = _whole(folds, metric)
    ranked = rows.filter(pl.col("trial_id").is_in([e.trial_id for e in board.ranked]))
    known = rows if ranked.is_empty() else ranked
    medians = dict(known.group_by("fold").agg(pl.col("value").median()).iter_rows())
    rest = dict(rows.group_by("fold").agg(pl.col("value").median()).iter_rows())
    return {**rest, **medians}


def _nullable(values: np.ndarray) -> list[list[float | None]]:
    return [[None if math.isnan(v) else float(v) for v in row] for row in values]


def figure_of(
    *, rows: int = 1, cols: int = 1, titles: Sequence[str] = (), spacing: float = 0.1, **layout: Any
) -> go.Figure:
    """Return an empty figure, or a grid of them, in the style of the page."""
    figure = go.Figure()
    if rows * cols > 1 or titles:
        figure = make_subplots(rows=rows, cols=cols, subplot_titles=tuple(titles), vertical_spacing=spacing)
        figure.update_annotations(font={"size": 12.5})
    figure.update_layout(
        template="none",
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 70, "r": 20, "t": 64, "b": 50},
        legend={
            "orientation": "h",
            "y": 1.02 if not titles else 1 + 34 / layout.get("height", 300),
            "yanchor": "bottom",
            "x": 0,
            "xanchor": "left",
        },
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "rgba(128,128,128,.6)", "activecolor": LEADING},
        hoverlabel={"font": {"size": 12}},
        **layout,
    )
    figure.update_xaxes(automargin=True, zeroline=False, gridcolor="rgba(128,128,128,.2)")
    figure.update_yaxes(automargin=True, zeroline=False, gridcolor="rgba(128,128,128,.2)")
    return figure
