"""Flatness judged by the search itself: did it tell of the next fold, and do the winner's neighbours win too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.measures.foresight import Foresight
from analysis.measures.importance import Axis
from analysis.measures.plateau import Plateau, plateau
from analysis.reports.leaderboard import Entry, Leaderboard, told_by
from analysis.run_folder import RunFolder

MEASURES: Mapping[str, str] = {
    "flatness": "top Hessian eigenvalue / loss",
    "flatness_adaptive": "the same, unchanged by rescaling",
    "flatness_trace": "trace of the Hessian / loss",
    "flatness_relative": "relative flatness / loss, unchanged by rescaling",
    "flatness_low_pass": "rise of the smoothed loss",
    "flatness_sam": "rise in the worst direction",
    "flatness_random": "rise in random directions",
    "weight_spectral": "log spectral norm of weights",
    "curve_flatness": "unrest of the loss curve",
}
"""Metrics that smaller means flatter, and what they are, for a reader."""
ALONE = 0.5
"""Share of trials above the mean of the winner's neighbours up to which these are like anybody else."""
MOST_NEAR = 2
"""The other trials are at least so many times the neighbours, or near is not nearer than usual and nothing is said."""


def foresights(run: RunFolder, board: Leaderboard) -> dict[str, Foresight]:
    """Return, for each measure of flatness that the run has, what it told; in the order of `MEASURES`."""
    ids = [e.trial_id for e in board.ranked]
    asked = {m: told_by(run, ids, m) for m in MEASURES if m in run.metrics}
    return {measure: found for measure, found in asked.items() if found is not None}


def around(axes: Mapping[str, Axis], ranked: Sequence[Entry]) -> Plateau | None:
    """Return the neighbourhood of the leader in the space of hyperparameters."""
    return plateau(list(axes.values()), [e.values["val_loss"] for e in ranked], 0) if ranked else None


def sentences(board: Leaderboard, near: Plateau | None) -> list[str]:
    """Return what flatness was worth, and whether the winner stands on a plateau."""
    return [*_worth(board), *_place(board, near)]


def _worth(board: Leaderboard) -> list[str]:
    found = board.foresight
    if found is None:
        return [] if not board.is_flatness_silent else [
            "Whether flatness tells of the next fold could not be asked (too few complete trials or folds), so it "
            "decided nothing in this ranking."
        ]  # fmt: skip
    interval = f"{found.value:+.2f}, {found.level:.0%} interval {found.low:+.2f} to {found.high:+.2f}"
    what = "Given the loss of a fold, its curvature told of the loss in the next"
    if found.is_told:
        return [f"{what} (partial rank correlation {interval}): flatter was better, and flatness breaks ties here."]
    return [f"{what} no more than chance would (partial rank correlation {interval}): flatness decides nothing here."]


def _place(board: Leaderboard, near: Plateau | None) -> list[str]:
    if near is None or board.leader is None or MOST_NEAR * len(near.neighbours) > len(board.ranked) - 1:
        return []
    names = ", ".join(board.ranked[k].trial_id for k in near.neighbours)
    error = "" if near.error is None else f" ± {near.error:.2g}"
    rise = f"{abs(near.rise):.2g}{error} {'above' if near.rise >= 0 else 'below'} it"
    text = f"The nearest settings of {board.leader.trial_id} ({names}) have a loss {rise}"
    if near.share <= ALONE:
        return [f"{text}, no better than most: it stands alone among its neighbours, which luck explains well."]
    return [f"{text}, better than {near.share:.0%} of the others: it stands on a plateau."]
