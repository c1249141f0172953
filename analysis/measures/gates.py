"""Phase gates, accuracy ladder and acceptance checks: pure functions of stored measures (GATE-0..5, ACC-1..7).

All bounds are strict: equality fails (GATE-5). A measure that is not known gives `inconclusive`, never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the gates ask for; the source of each is the document that set it."""

    proceed_ic: float = 0.03
    """Validation IC to proceed at all ([grok-doc] 5)."""
    proceed_crps_reduction: float = 0.10
    """Relative CRPS reduction against the baseline to proceed ([grok-doc] 5)."""
    phase_1_ic: float = 0.02
    """[grok-doc] 7."""
    phase_2_crps_reduction: float = 0.15
    """Against the phase 1 run of the same folds ([grok-doc] 7)."""
    phase_3_tail_accuracy: float = 0.55
    """[grok-doc] 7."""
    least_tail_events: int = 100
    """Fewer are inconclusive (GATE-3)."""
    ladder: tuple[float, float, float] = (0.50, 0.55, 0.60)
    """Baseline, target 1, target 2 of accuracy ([scaling-doc])."""
    nan_rate: float = 0.05
    """[scaling-doc]."""
    directional_accuracy: float = 0.52
    """[scalper-doc]."""
    sharpe: float = 1.0
    """Annualised, net ([scalper-doc])."""
    share_of_gaining_folds: float = 0.70
    """At least (ACC-3)."""
    recent_folds: int = 3
    """ACC-4."""
    fold_variation: float = 1.0
    """Coefficient of variation over folds (ACC-5)."""
    train_gap: float = 0.10
    """Relative difference of training and validation loss that still counts as equal (ANALYSIS-12)."""
    aspired_ic: float = 0.05
    """ACC-7 ([grok-doc] 1.2)."""
    aspired_crps_reduction: float = 0.25
    """ACC-7 ([grok-doc] 1.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The outcome of one gate.

    Attributes:
        name: `GATE-0`, `ACC-3`.
        outcome: `inconclusive` where a measure is not known or too few cases stand behind it.
        margin: Smallest distance to a bound, in its unit; positive passes. None where inconclusive.
        reason: What was compared, for a reader.
    """

    name: str
    outcome: Outcome
    margin: float | None
    reason: str


def proceed(ic: float | None, crps: float | None, baseline_crps: float | None, bounds: Bounds = Bounds()) -> Gate:
    """GATE-0: IC above its bound, and CRPS below the baseline by more than the asked share."""
    reduction = None if crps is None or not baseline_crps else 1 - crps / baseline_crps
    if reduction is not None and baseline_crps:
        # Compared as products: 0.9 x baseline must fail exactly, which 1 - crps / baseline would round away.
        is_lower = crps < (1 - bounds.proceed_crps_reduction) * baseline_crps
        reduction = reduction if is_lower else min(reduction, bounds.proceed_crps_reduction)
    return _above("GATE-0", ("IC", ic, bounds.proceed_ic), ("CRPS reduction", reduction, bounds.proceed_crps_reduction))


def phase_1(ic: float | None, peak_vram_gib: float | Literal["not_measured"] | None, bounds: Bounds = Bounds()) -> Gate:
    """GATE-1: IC above its bound; the peak of GPU memory was recorded, or said to be not measured."""
    if peak_vram_gib is None:
        return _unknown("GATE-1", "peak GPU memory is not recorded (a number or not_measured)")
    return _above("GATE-1", ("IC", ic, bounds.phase_1_ic))


def phase_2(crps: float | None, phase_1_crps: float | None, bounds: Bounds = Bounds()) -> Gate:
    """GATE-2: CRPS fell by more than the asked share against the phase 1 run on the same folds."""
    reduction = None if crps is None or not phase_1_crps else 1 - crps / phase_1_crps
    return _above("GATE-2", ("CRPS reduction against phase 1", reduction, bounds.phase_2_crps_reduction))


def phase_3(tail_accuracy: float | None, n_tail_events: int, bounds: Bounds = Bounds()) -> Gate:
    """GATE-3: tail accuracy above its bound on enough tail events."""
    if n_tail_events < bounds.least_tail_events:
        return _unknown("GATE-3", f"{n_tail_events} tail events, {bounds.least_tail_events} are needed")
    return _above("GATE-3", ("tail accuracy", tail_accuracy, bounds.phase_3_tail_accuracy))


def ladder(accuracy: float | None, nan_rate: float | None, bounds: Bounds = Bounds()) -> Gate:
    """GATE-4: the highest step of the accuracy ladder that is reached; the NaN rate must be below its bound."""
    if accuracy is None or nan_rate is None:
        return _unknown("GATE-4", "accuracy or NaN rate is not known")
    names = ("baseline", "target 1", "target 2")
    reached = [n for n, bound in zip(names, bounds.ladder, strict=True) if accuracy > bound]
    margin = min(accuracy - bounds.ladder[0], bounds.nan_rate - nan_rate)
    step = reached[-1] if reached else "below the baseline"
    is_passed = bool(reached) and nan_rate < bounds.nan_rate
    reason = f"accuracy {accuracy:.4f}: {step}; NaN rate {nan_rate:.4f} (below {bounds.nan_rate:g})"
    return Gate(name="GATE-4", outcome="pass" if is_passed else "fail", margin=margin, reason=reason)


def scalper_accuracy(directional: float | None, majority: float | None, bounds: Bounds = Bounds()) -> Gate:
    """ACC-1: directional accuracy on moves above its bound and above the majority class."""
    above = None if directional is None or majority is None else directional - majority
    return _above(
        "ACC-1",
        ("directional accuracy", directional, bounds.directional_accuracy),
        ("directional accuracy above the majority class", above, 0.0),
    )


def sharpe(annual: float | None, bounds: Bounds = Bounds()) -> Gate:
    """ACC-2: annualised net Sharpe ratio above its bound."""
    return _above("ACC-2", ("Sharpe ratio", annual, bounds.sharpe))


def consistent_profit(fold_pnl: Sequence[float], bounds: Bounds = Bounds()) -> Gate:
    """ACC-3: at least the asked share of folds gains, and the worst fold loses less than the mean fold gains."""
    pnl = np.asarray(fold_pnl, dtype=np.float64)
    if len(pnl) < 2 or not np.isfinite(pnl).all():
        return _unknown("ACC-3", "net P&L of two folds or more is needed")
    share, mean, worst = float((pnl > 0).mean()), float(pnl.mean()), float(pnl.min())
    is_passed = share >= bounds.share_of_gaining_folds and mean > 0 and worst > -mean
    reason = f"{share:.0%} of folds gain, mean {mean:.4g}, worst {worst:.4g}"
    margin = min(share - bounds.share_of_gaining_folds, worst + mean)
    return Gate(name="ACC-3", outcome="pass" if is_passed else "fail", margin=margin, reason=reason)


def no_recent_decline(fold_scores: Sequence[float], bounds: Bounds = Bounds()) -> Gate:
    """ACC-4: the mean of the last folds is no lower than the mean of the earlier ones minus its standard error.

    Args:
        fold_scores: The larger the better, folds in time order.
        bounds: How many folds are recent.
    """
    scores = np.asarray(fold_scores, dtype=np.float64)
    earlier, recent = scores[: -bounds.recent_folds], scores[-bounds.recent_folds :]
    if len(earlier) < 2 or not np.isfinite(scores).all():
        return _unknown("ACC-4", f"{bounds.recent_folds + 2} folds or more are needed, {len(scores)} are there")
    error = float(earlier.std(ddof=1)) / math.sqrt(len(earlier))
    margin = float(recent.mean() - (earlier.mean() - error))
    reason = f"last {bounds.recent_folds} folds {recent.mean():.4g}, before {earlier.mean():.4g} ± {error:.2g}"
    return Gate(name="ACC-4", outcome="pass" if margin >= 0 else "fail", margin=margin, reason=reason)


def no_overfitting(
    train: Sequence[float],
    validation: Sequence[float],
    *,
    is_causal: bool | None = None,
    regime_loss_ratio: float | None = None,
    bounds: Bounds = Bounds(),
) -> Gate:
    """ACC-5: curves do not part, folds are consistent, nothing looks ahead, unseen regimes are no worse.

    Args:
        train: (n_folds,) training losses.
        validation: (n_folds,) validation losses.
        is_causal: Whether the look-ahead test passed (DATA-30); None: not run.
        regime_loss_ratio: Loss in unseen regimes over that in seen ones (HYP-1); None: not measured.
        bounds: Equality of losses and variation over folds.
    """
    labels = {diagnose(t, v, bounds=bounds) for t, v in zip(train, validation, strict=True)}
    v = np.asarray(validation, dtype=np.float64)
    failed = [f"{label} in a fold" for label in sorted(labels & {"overfitting", "data_problem"})]
    if len(v) > 1 and np.isfinite(v).all() and v.mean() > 0:
        variation = float(v.std(ddof=1) / v.mean())
        failed += (
            [] if variation < bounds.fold_variation else [f"losses vary over folds by {variation:.2f} of the mean"]
        )
    failed += ["the look-ahead test failed"] if is_causal is False else []
    worse = regime_loss_ratio is not None and regime_loss_ratio > 1 + bounds.train_gap
    failed += [f"loss in unseen regimes is {regime_loss_ratio:.2f} times that in seen ones"] if worse else []
    if failed:
        return Gate(name="ACC-5", outcome="fail", margin=None, reason="; ".join(failed))
    open_points = [] if len(v) > 1 else ["two folds or more"]
    open_points += ["the look-ahead test"] if is_causal is None else []
    open_points += ["unseen regimes"] if regime_loss_ratio is None else []
    if open_points:
        return _unknown("ACC-5", f"nothing failed; not measured: {', '.join(open_points)}")
    return Gate(name="ACC-5", outcome="pass", margin=None, reason="curves, folds, causality and regimes hold")


def stable_training(nan_rates: Sequence[float], bounds: Bounds = Bounds()) -> Gate:
    """ACC-6: the share of steps with NaN is below its bound in every fold."""
    if not len(nan_rates):
        return _unknown("ACC-6", "no NaN rate is recorded")
    return _above("ACC-6", ("room below the NaN bound", bounds.nan_rate - max(nan_rates), 0.0))


def aspiration(
    ic: float | None, crps: float | None, baseline_crps: float | None, gates: Sequence[Gate], bounds: Bounds = Bounds()
) -> Gate:
    """ACC-7: the IC and CRPS that the documents aspire to, and all of GATE-0 to GATE-3."""
    reduction = None if crps is None or not baseline_crps else 1 - crps / baseline_crps
    own = _above("ACC-7", ("IC", ic, bounds.aspired_ic), ("CRPS reduction", reduction, bounds.aspired_crps_reduction))
    failed = [g.name for g in gates if g.outcome == "fail"]
    unknown = [g.name for g in gates if g.outcome == "inconclusive"]
    if failed:
        return Gate(
            name="ACC-7", outcome="fail", margin=own.margin, reason=f"{own.reason}; failed: {', '.join(failed)}"
        )
    if own.outcome == "pass" and unknown:
        return _unknown("ACC-7", f"{own.reason}; inconclusive: {', '.join(unknown)}")
    return own


def diagnose(train: float, validation: float, *, bounds: Bounds = Bounds()) -> str:
    """Compare training and validation loss (ANALYSIS-12): one of the keys of `ADVICE`."""
    if not math.isfinite(validation) or not math.isfinite(train):
        return "data_problem"
    if abs(train - validation) <= bounds.train_gap * max(abs(train), abs(validation)):
        return "healthy"
    return "overfitting" if train < validation else "unusual"


ADVICE: Mapping[str, str] = {
    "healthy": "training and validation loss agree within a tenth: continue",
    "overfitting": "training loss is lower: regularise, or train fewer epochs",
    "unusual": "training loss is higher: unusual, usually resolves; watch",
    "data_problem": "validation loss is not a number: inspect the normalisation of the data",
}


def _above(name: str, *claims: tuple[str, float | None, float]) -> Gate:
    """Pass where every value is strictly above its bound."""
    unknown = [what for what, value, _ in claims if value is None or not math.isfinite(value)]
    if unknown:
        return _unknown(name, f"{' and '.join(unknown)} not known")
    margins = [value - bound for _, value, bound in claims if value is not None]
    is_passed = all(value > bound for _, value, bound in claims if value is not None)
    reason = ", ".join(f"{what} {value:.4g} (above {bound:g})" for what, value, bound in claims)
    return Gate(name=name, outcome="pass" if is_passed else "fail", margin=min(margins), reason=reason)


def _unknown(name: str, reason: str) -> Gate:
    return Gate(name=name, outcome="inconclusive", margin=None, reason=reason)
