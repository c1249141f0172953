"""What a trial saves over a naive forecast, row by row, as far as its evidence allows (ANALYSIS-4)."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.measures import baselines, crps

Float = NDArray[np.float64]
Scores = dict[bytes, tuple[Float, str]]
EWMA_SPAN_ROWS = 32.0
"""Memory of the naive volatility forecast: the weight 0.06 of RiskMetrics (1996), 2 / (span + 1)."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantage:
    """Score of a naive forecast minus the trial's on the same rows: positive where the trial is better.

    Attributes:
        measure: What is scored, for a reader: `CRPS at 1d`, `loss`.
        baseline: What the naive forecast is, for a reader.
        own, naive: (n_rows,) scores; NaN where the naive forecast has no past yet or a value is not known.
    """

    measure: str
    baseline: str
    own: Float
    naive: Float

    @property
    def values(self) -> Float:
        return self.naive - self.own


def horizons(columns: Sequence[str]) -> list[str]:
    """Return the horizon labels that have both a prediction and a target, in order of length."""
    labels = [c.removeprefix("prediction_") for c in columns if c.startswith("prediction_")]
    known = [h for h in labels if f"target_{h}" in columns]
    return sorted(known, key=lambda h: (_seconds(h) or math.inf, _bars(h) or 0, h))


def horizon_rows(timestamps: pl.Series, horizon: str) -> int:
    """Return how many rows a horizon such as `5d`, `30m` or `20b` (bars) spans at the usual step; 1 where unknown."""
    if (bars := _bars(horizon)) is not None:
        return max(1, bars)
    seconds = _seconds(horizon)
    if seconds is None or len(timestamps) < 2:
        return 1
    step = float(np.median(np.diff(nanoseconds(timestamps)))) / 1e9
    return max(1, round(seconds / step)) if step > 0 else 1


def nanoseconds(timestamps: pl.Series) -> NDArray[np.int64]:
    """Return times as nanoseconds since 1970; numbers are taken as such."""
    if timestamps.dtype.is_integer():
        return timestamps.cast(pl.Int64).to_numpy()
    return timestamps.cast(pl.Datetime("ns"), strict=False).cast(pl.Int64).to_numpy()


def past_scale(evidence: pl.DataFrame) -> Float | None:
    """Return the moving spread of past targets of the shortest horizon, (n_rows,), NaN before any is known.

    A target enters once its horizon has passed, so the value is known when the row is decided upon. None without a
    target.
    """
    known = horizons(evidence.columns)
    if not known:
        return None
    target = np.nan_to_num(evidence[f"target_{known[0]}"].cast(pl.Float64).to_numpy())
    lag = horizon_rows(evidence["timestamp"], known[0])
    found = np.full(len(target), math.nan)
    found[lag:] = baselines.ewma_scale(target, span_rows=EWMA_SPAN_ROWS)[: max(0, len(target) - lag)]
    found[found <= 0] = math.nan
    return found


def columns_needed(columns: Sequence[str]) -> list[str]:
    """Return the columns that `advantage` reads where these exist; empty where nothing can be compared."""
    for measure in ("crps", "loss"):
        if {measure, f"baseline_{measure}"} <= set(columns):
            return [measure, f"baseline_{measure}"]
    scaled = [h for h in horizons(columns) if f"scale_{h}" in columns]
    if scaled:
        return [f"{what}_{scaled[0]}" for what in ("prediction", "target", "scale")]
    return ["p_up", "up"] if {"p_up", "up"} <= set(columns) else []


def advantage(evidence: pl.DataFrame, known: Scores | None = None) -> Advantage | None:
    """Compare a trial with a naive forecast on the same rows.

    The first that the evidence allows: scores of a naive forecast that it brings (`baseline_loss`, `baseline_crps`);
    the CRPS of its shortest horizon with a predicted scale against `naive_crps`; the Brier score of `p_up` against the
    share of rises in earlier folds.

    Args:
        evidence: As from `RunFolder.evidence`: in time order with a column `fold`.
        known: Naive scores by their targets, filled here: trials that share targets share them.

    Returns:
        None where it allows none of these.
    """
    needed = columns_needed(evidence.columns)
    if not needed:
        return None
    first, *rest = (evidence[c].cast(pl.Float64).to_numpy() for c in needed)
    if needed[1].startswith("baseline_"):
        name = "CRPS" if needed[0] == "crps" else needed[0]
        return Advantage(measure=name, baseline="the naive forecast of the training rows", own=first, naive=rest[0])
    fold = evidence["fold"].to_numpy()
    if needed == ["p_up", "up"]:
        naive = _from_earlier(rest[0], fold, lambda past, now: (now - past.mean()) ** 2)
        return Advantage(
            measure="Brier score", baseline="the share of rises so far", own=(first - rest[0]) ** 2, naive=naive
        )
    horizon = needed[0].removeprefix("prediction_")
    own = crps.gaussian(rest[0], first, np.where(rest[1] > 0, rest[1], math.nan))
    rows = horizon_rows(evidence["timestamp"], horizon)
    scores = {} if known is None else known
    key = hashlib.blake2b(rest[0].tobytes() + fold.tobytes() + bytes(str(rows), "ascii")).digest()
    if key not in scores:
        scores[key] = naive_crps(rest[0], fold, rows)
    naive, words = scores[key]
    return Advantage(measure=f"CRPS at {horizon}", baseline=words, own=own, naive=naive)


def naive_crps(target: Float, fold: NDArray[np.int64], n_horizon: int) -> tuple[Float, str]:
    """Return the CRPS of the better of two forecasts that know past targets only, and its name.

    Both are zero-mean normals: one with the spread of all earlier folds, one with an EWMA of the targets that are known
    (the horizon has passed). The first fold has no past: NaN. The last targets of a fold may reach into the next, a
    help to the naive forecast.

    Args:
        target: (n,) in time order; NaN where not known.
        fold: (n,) number of the fold of each row, not decreasing.
        n_horizon: Rows that one target spans.
    """
    spread = _from_earlier(
        target, fold, lambda past, now: baselines.zero_mean_gaussian_crps(now, baselines.scale_of(past))
    )
    scale = np.full(len(target), math.nan)
    known = baselines.ewma_scale(np.nan_to_num(target), span_rows=EWMA_SPAN_ROWS)
    scale[n_horizon:] = known[:-n_horizon]
    moving = baselines.zero_mean_gaussian_crps(target, np.where(scale > 0, scale, math.nan))
    moving[fold == fold[:1]] = math.nan
    both = np.isfinite(moving) & np.isfinite(spread)
    if both.any() and moving[both].mean() < spread[both].mean():
        return moving, "a zero-mean normal with the moving spread of past targets"
    return spread, "a zero-mean normal with the spread of earlier folds"


def _from_earlier(target: Float, fold: NDArray[np.int64], score: Callable[[Float, Float], Float]) -> Float:
    """Score the targets of each fold by what those of all earlier folds say; NaN where they say nothing."""
    found = np.full(len(target), math.nan)
    for number in np.unique(fold)[1:]:
        rows, past = fold == number, target[fold < number]
        past = past[np.isfinite(past)]
        if len(past) and np.any(past != 0):
            found[rows] = score(past, target[rows])
    return found


def _seconds(horizon: str) -> int | None:
    found = re.fullmatch(r"(\d+)([smhd])", horizon)
    return int(found[1]) * _SECONDS[found[2]] if found else None


def _bars(horizon: str) -> int | None:
    found = re.fullmatch(r"(\d+)b", horizon)
    return int(found[1]) if found else None
