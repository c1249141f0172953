"""Figures of the search: confidence set, importance and slices of parameters, lineage, cost, stability over folds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from analysis.measures.importance import Axis, Importance
from analysis.reports.honesty import Honesty
from analysis.reports.leaderboard import Entry, Leaderboard
from analysis.reports.plots import FRONT, LEADING, REST, STATE_COLOURS, figure_of, frame
from analysis.reports.verdict import STATE_WORDS

MOST_BARS, MOST_SLICES, MOST_LINKS = 40, 6, 2000


def confidence_set(honesty: Honesty) -> go.Figure | None:
    """Plot how far each trial is behind the best on the same timestamps, set members apart; None without a set."""
    if honesty.confidence is None:
        return None
    shown = list(honesty.p_by_trial)[:MOST_BARS]
    figure = figure_of(
        height=130 + 19 * len(shown),
        xaxis_title=f"loss behind {honesty.best}, same timestamps, ± one standard error",
        showlegend=True,
    )
    members = set(honesty.members)
    for is_member, name in ((True, "cannot be told apart from the best"), (False, "worse beyond luck")):
        group = [t for t in shown if (t in members) is is_member]
        if group:
            gaps = [honesty.behind[t] for t in group]
            figure.add_scatter(
                x=[g.mean for g in gaps],
                y=group,
                error_x={"array": [g.error or 0.0 for g in gaps], "thickness": 1.2, "width": 3},
                mode="markers",
                marker={"size": 8, "color": LEADING if is_member else REST},
                name=name,
                customdata=[honesty.p_by_trial[t] for t in group],
                hovertemplate="%{y}: %{x:.4g} behind, p = %{customdata:.3f}<extra></extra>",
            )
    figure.add_vline(x=0, line={"color": REST, "width": 1})
    figure.update_yaxes(categoryorder="array", categoryarray=shown[::-1], showgrid=False)
    return figure


def importance(found: Mapping[str, Importance]) -> go.Figure | None:
    """Plot the share of each parameter with the level that one without any effect would reach; None without any."""
    shown = [(name, v) for name, v in found.items() if v.share > 0][:20]
    if not shown:
        return None
    figure = figure_of(height=110 + 24 * len(shown), xaxis_title="share of the importance (PED-ANOVA, best tenth)")
    figure.add_bar(
        x=[v.share for _, v in shown],
        y=[name for name, _ in shown],
        orientation="h",
        marker={"color": [LEADING if v.is_above_noise else REST for _, v in shown]},
        name="importance; grey: no more than noise",
        customdata=[[v.noise, v.share_active] for _, v in shown],
        hovertemplate="%{y}: %{x:.1%}, noise below %{customdata[0]:.1%}, active in %{customdata[1]:.0%}<extra></extra>",
    )
    figure.add_scatter(
        x=[min(v.noise, 1.0) for _, v in shown],
        y=[name for name, _ in shown],
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 16, "color": FRONT, "line": {"width": 2}},
        name="reached by 5 % of parameters without effect",
        hoverinfo="skip",
    )
    figure.update_xaxes(tickformat=".0%", range=[0, 1.02])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def slices(axes: Mapping[str, Axis], entries: Sequence[Entry], members: Sequence[str]) -> go.Figure | None:
    """Plot the loss against each of the given parameters; None without any. Values are in the parameter's own unit."""
    names = list(axes)[:MOST_SLICES]
    if not names or not entries:
        return None
    n_rows, n_columns = math.ceil(len(names) / 3), min(3, len(names))
    figure = figure_of(height=60 + 230 * n_rows, rows=n_rows, cols=n_columns, titles=names, spacing=0.22 / n_rows)
    inside = set(members)
    losses = np.array([e.values["val_loss"] for e in entries])
    _, high = frame(losses)
    for k, name in enumerate(names):
        place = {"row": k // 3 + 1, "col": k % 3 + 1}
        for is_member, words in ((False, "other complete trials"), (True, "in the confidence set")):
            rows = [e for e in entries if (e.trial_id in inside) is is_member and e.parameters.get(name) is not None]
            is_category = axes[name].n_categories > 0
            figure.add_scatter(
                x=[str(e.parameters[name]) if is_category else e.parameters[name] for e in rows],
                y=[min(e.values["val_loss"], high) for e in rows],
                mode="markers",
                marker={"size": 7, "color": LEADING if is_member else REST, "opacity": 0.75},
                name=words,
                legendgroup=words,
                showlegend=k == 0,
                text=[e.trial_id for e in rows],
                hovertemplate="%{text}: %{x}, %{y:.5g}<extra></extra>",
                **place,
            )
        figure.update_xaxes(
            type="category" if axes[name].n_categories else "log" if axes[name].is_log else "linear", **place
        )
        if axes[name].is_log:
            figure.update_xaxes(
                dtick=1 if axes[name].high / axes[name].low >= 100 else None, exponentformat="e", **place
            )
        figure.update_yaxes(title_text="loss" if k % 3 == 0 else None, **place)
    return figure


def lineage(board: Leaderboard, heights: Mapping[str, float]) -> go.Figure | None:
    """Plot trials by generation with lines to their parents; None where no trial has a parent or a generation.

    Args:
        board: All trials.
        heights: Trial -> loss above the median complete trial on the folds that it saw.
    """
    entries = [e for e in (*board.ranked, *board.unranked) if e.trial_id in heights]
    known = {e.trial_id: e for e in entries}
    links = [(known[p], e) for e in entries for p in e.parents if p in known]
    if not links and len({e.generation for e in entries}) < 2:
        return None
    low, high = frame(np.array([heights[e.trial_id] for e in entries]))
    figure = figure_of(
        height=380, xaxis_title="generation", yaxis_title="loss above the median<br>complete trial, same folds"
    )
    spot = {e.trial_id: (e.generation + _jitter(e.number), min(heights[e.trial_id], high)) for e in entries}
    lines: list[tuple[float | None, float | None]] = []
    for parent, child in links[:MOST_LINKS]:
        lines += [spot[parent.trial_id], spot[child.trial_id], (None, None)]
    if lines:
        figure.add_scatter(
            x=[x for x, _ in lines], y=[y for _, y in lines], mode="lines", name="parent to child",
            line={"color": "rgba(128,128,128,.35)", "width": 1}, hoverinfo="skip",
        )  # fmt: skip
    for state, colour in STATE_COLOURS.items():
        group = [e for e in entries if e.state == state]
        if group:
            figure.add_scatter(
                x=[spot[e.trial_id][0] for e in group],
                y=[spot[e.trial_id][1] for e in group],
                mode="markers",
                name=STATE_WORDS[state],
                marker={"color": colour, "size": 8, "symbol": "circle" if state == "complete" else "x-thin-open"},
                text=[f"{e.trial_id}, {e.origin}, from {', '.join(e.parents) or 'nobody'}" for e in group],
                hovertemplate="%{text}: %{y:+.4g}<extra></extra>",
            )
    margin = 0.05 * (high - low) or 1.0
    figure.update_yaxes(range=[low - margin, high + margin])
    figure.update_xaxes(dtick=1 if max(e.generation for e in entries) <= 20 else None)
    return figure


def cost(board: Leaderboard) -> go.Figure | None:
    """Plot the training time that went into trials of each state; None where none was recorded."""
    spent: dict[str, float] = {}
    for entry in (*board.ranked, *board.unranked):
        spent[entry.state] = spent.get(entry.state, 0.0) + entry.seconds
    total = sum(spent.values())
    if total <= 0:
        return None
    unit, size = ("hours", 3600) if total >= 7200 else ("minutes", 60) if total >= 120 else ("seconds", 1)
    counts = board.counts()
    figure = figure_of(height=150, xaxis_title=f"training time, {unit}", barmode="stack")
    for state in sorted(spent, key=lambda s: -spent[s]):
        share = spent[state] / total
        figure.add_bar(
            x=[spent[state] / size],
            y=[""],
            orientation="h",
            name=f"{STATE_WORDS.get(state, state)} ({counts[state]})",
            marker={"color": STATE_COLOURS.get(state, REST)},
            text=f"{share:.0%}" if share >= 0.06 else "",
            insidetextanchor="middle",
            hovertemplate=f"%{{x:.3g}} {unit}, {share:.1%}<extra>{STATE_WORDS.get(state, state)}</extra>",
        )
    return figure


def stability(honesty: Honesty, axes: Mapping[str, Axis]) -> go.Figure | None:
    """Plot how the order of trials persists from fold to fold, and where the best values of parameters drift.

    Drift is on the scale of the search: 0 is the low end of a range, 1 the high end. None below two pairs of folds.
    """
    if honesty.persistence is None or len(honesty.persistence.pairs) < 2:
        return None
    drift = {name: values for name, values in honesty.drift.items() if name in axes and np.isfinite(values).sum() > 1}
    titles = ("order of trials, fold to next fold", "best values of numeric parameters")
    figure = figure_of(height=330, rows=1, cols=2 if drift else 1, titles=titles if drift else titles[:1])
    pairs = honesty.persistence.pairs
    figure.add_bar(
        x=[f"{k}→{k + 1}" for k in range(len(pairs))], y=[None if math.isnan(v) else float(v) for v in pairs],
        marker={"color": [FRONT if v < 0 else LEADING for v in pairs]}, showlegend=False, row=1, col=1,
        hovertemplate="folds %{x}: %{y:+.2f}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(title_text="rank correlation", range=[-1, 1], row=1, col=1)
    for name, values in list(drift.items())[:5]:
        figure.add_scatter(
            x=[f"fold {k}" for k in range(len(values))], y=[None if math.isnan(v) else float(v) for v in values],
            mode="lines+markers", name=name, row=1, col=2,
        )  # fmt: skip
    if drift:
        figure.update_yaxes(title_text="place in the range", range=[-0.02, 1.02], row=1, col=2)
    return figure


def _jitter(number: int) -> float:
    """Spread the trials of a generation sideways, the same way each time."""
    return ((number * 0.618034) % 1.0 - 0.5) * 0.5
