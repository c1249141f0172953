"""The honest part of the verdict in plain words: what may be claimed after having tried many trials."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.evidence import LeftOut
from analysis.reports.honesty import LEAST_FOLDS, LEVEL, Honesty, NaiveTest

FEW_INDEPENDENT = 50
"""Timestamps over horizon below which even long-run standard errors are too small (Lazarus et al. 2018 and our own
simulations: a nominal 5 % is 11 % at 250 rows and a horizon of 20)."""
MOST_NAMES = 7


def headline(honesty: Honesty) -> str | None:
    """Return the finding in one sentence; None where it adds nothing to the plain ranking."""
    compared = honesty.n_compared
    if honesty.finding in ("nothing", "single"):
        return None
    if honesty.finding == "no_winner":
        return f"No winner: {_nobody(honesty)}."
    if honesty.finding == "unknown":
        if honesty.confidence is None:
            return None
        if len(honesty.members) == 1:
            return (
                f"{honesty.best} has the lowest loss of {compared} trials beyond luck; whether it beats a naive "
                "forecast is not known."
            )
        return f"No winner: {_set(honesty)}, and the evidence holds nothing naive to compare them with."
    what = _listed([t.what for t in _beaten(honesty)])
    if honesty.finding == "too_few_folds":
        folds = f"{honesty.n_folds} fold{'s' * (honesty.n_folds != 1)}"
        return f"No winner yet: a naive forecast is beaten in {what}, but in {folds} only; {LEAST_FOLDS} are the least."
    if honesty.finding == "winner":
        if compared == 1:
            return f"{honesty.best}, the only complete trial, beats a naive forecast in {what}."
        alone = f"is alone in the {LEVEL:.0%} confidence set of {compared} trials"
        return f"{honesty.best} wins: it beats a naive forecast in {what} and {alone}."
    return f"No single winner: a naive forecast is beaten in {what}, but {_set(honesty)}."


def parts(honesty: Honesty) -> list[tuple[str, list[str]]]:
    """Return what carries the headline as (subject, sentences), most important first."""
    if honesty.finding == "nothing":
        return []
    found = [
        ("Against naive forecasts", [_naive(t, honesty) for t in honesty.naive]),
        ("Among the trials", [_confidence(honesty)] if honesty.confidence is not None else []),
        ("Does it last", [*_nested(honesty), *_persistence(honesty)]),
        ("How much is luck", _luck(honesty)),
    ]
    return [(subject, said) for subject, said in found if said]


def warnings(honesty: Honesty, left_out: LeftOut) -> list[str]:
    """Return what weakens the comparison."""
    found = []
    if honesty.n_compared and honesty.n_independent < FEW_INDEPENDENT:
        found.append(
            f"Few effective samples: {honesty.n_rows} timestamps are {honesty.n_independent:.0f} spans of the longest "
            f"horizon, below {FEW_INDEPENDENT}; all errors are too small, so doubt even what they separate."
        )
    if left_out.short:
        names = [f"{trial} ({share:.0%})" for trial, share in left_out.short]
        found.append(f"Left out of all comparisons, as they lack many of the usual timestamps: {_short(names)}.")
    if left_out.broken:
        names = [f"{trial}: {why}" for trial, why in left_out.broken]
        found.append(f"Left out of all comparisons, as their evidence cannot be used: {_short(names)}.")
    if left_out.constant_loss:
        found.append(f"Left out of all comparisons, as their loss never changes: {_short(left_out.constant_loss)}.")
    if left_out.constant_prediction:
        found.append(f"Their forecast never changes, so they have no IC: {_short(left_out.constant_prediction)}.")
    return found


def _nobody(honesty: Honesty) -> str:
    n = honesty.n_compared
    if any(t.p < t.level for t in honesty.naive):
        return "what beats a naive forecast over all folds did not when it was chosen on the folds before"
    whom = "the only complete trial does not beat" if n == 1 else f"none of {n} complete trials beats"
    return f"{whom} a naive forecast by more than luck would"


def _set(honesty: Honesty) -> str:
    n, size = honesty.n_compared, len(honesty.members)
    if size == n:
        return f"the {n} trials cannot be told apart at {LEVEL:.0%}"
    if size == 1:
        return f"the lowest loss, that of {honesty.best}, is not that of a trial that beats it"
    return f"{size} of {n} trials cannot be told apart at {LEVEL:.0%}"


def _beaten(honesty: Honesty) -> list[NaiveTest]:
    return [t for t in honesty.naive if t.is_beaten]


def _naive(test: NaiveTest, honesty: Honesty) -> str:
    chance = f"p = {test.p:.3f}" if test.p >= 0.001 else "p < 0.001"
    allowing = f", allowing for the choice among {honesty.n_started} trials" if honesty.n_started > 1 else ""
    names = f": {_short(test.superior)}" if test.superior else ""
    verb = "is beaten" if test.p < test.level else "is not beaten"
    text = f"In {test.what}, {test.baseline} {verb}{names} ({chance}{allowing}; {test.n_rows} timestamps)."
    if test.p < test.level and test.later is not None and test.later.mean <= 0:
        text += " Yet trials chosen by it on earlier folds were no better than it on the next."
    return text


def _confidence(honesty: Honesty) -> str:
    n, members = honesty.n_compared, honesty.members
    if len(members) == 1:
        return f"{members[0]} is alone in the {LEVEL:.0%} confidence set of {n} trials: no other loss is as low."
    if len(members) == n:
        return f"At {LEVEL:.0%}, no trial of {n} can be told apart from the best: take the simplest or the cheapest."
    return f"These {len(members)} of {n} cannot be told apart at {LEVEL:.0%}: {_short(members, 12)}."


def _nested(honesty: Honesty) -> list[str]:
    nested = honesty.nested
    if nested is None or honesty.n_compared < 2:
        return []
    gap = nested.against_median
    error = "" if gap.error is None else f" ± {gap.error:.2g}"
    side = f"{abs(gap.mean):.3g}{error} {'lower' if gap.mean < 0 else 'higher'} than" if gap.mean else "the same as"
    text = (
        f"Had one chosen on the folds so far and waited for the next, the loss would have been {side} that of the "
        f"median trial, over {gap.n_folds} fold{'s' * (gap.n_folds != 1)}"
    )
    if nested.against_naive is not None:
        gain = nested.against_naive
        better = "better" if gain.mean > 0 else "worse"
        t = f" (t = {gain.mean / gain.error:.1f})" if gain.error else ""
        text += f", and its score {better} than the naive one{t}"
    return [text + "."]


def _luck(honesty: Honesty) -> list[str]:
    found = []
    if honesty.deflated_z is not None:
        z, luckiest = (
            round(honesty.deflated_z, 1) + 0.0,
            f"that of the luckiest of {honesty.n_effective:.0f} equal trials",
        )
        how = f"{z:.1f} standard errors better than {luckiest}" if z > 0 else f"no better than {luckiest}"
        found.append(f"The lowest loss is {how} would be (z = {z:+.1f}; {honesty.n_started} were started).")
    if honesty.deflated_sharpe is not None:
        found.append(
            f"The deflated Sharpe ratio of {honesty.best} is {honesty.deflated_sharpe:.2f} "
            "(0.5 is as good as luck, 0.95 is convincing)."
        )
    if honesty.optimism is not None and honesty.shrunken is not None:
        found.append(
            f"On new rows expect about {honesty.optimism.optimism:.2g} more loss of the chosen trial than it shows "
            f"here ({honesty.optimism.naive:.4g}; shrunken towards the others it is {honesty.shrunken:.4g})."
        )
    if honesty.overfitting is not None:
        found.append(
            f"In {honesty.overfitting.probability:.0%} of the ways to halve the time, the best of one half is at or "
            "below the median of the other (probability of backtest overfitting; around a half there is nothing to "
            "choose by)."
        )
    return found


def _persistence(honesty: Honesty) -> list[str]:
    if honesty.persistence is None:
        return []
    error = "" if honesty.persistence.error is None else f" ± {honesty.persistence.error:.2f}"
    return [
        f"The order of trials in one fold correlates with that in the next by {honesty.persistence.mean:+.2f}{error}."
    ]


def _short(names: Sequence[str], most: int = MOST_NAMES) -> str:
    shown = list(names[:most])
    return _listed(shown) if len(names) <= most else f"{', '.join(shown)} and {len(names) - most} more"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
