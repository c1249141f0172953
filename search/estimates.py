"""What a trial that did not finish would have been worth, as far as its folds tell."""

from __future__ import annotations

import math

from search.trial import Estimate, Trial


def paired_estimate(trial: Trial, reference: Trial, metric: str) -> Estimate | None:
    """Return the value of a trial on all folds of a reference trial, by paired differences on the folds of both.

    The mean of the reference plus the mean difference, weighted by scored timestamps (ANALYSIS-1): a trial that was
    dropped on easy folds does not look good for that. The standard error is that of the weighted mean difference over
    folds; it leaves out how well the reference itself is known, which is the same for all trials that are compared.

    Args:
        trial: With at least one complete fold.
        reference: With all folds that count, such as the best complete trial.
        metric: Key of `Observation.metrics`.

    Returns:
        Mean in the unit of the metric, its standard error (None below two common folds) and the number of common folds.
        None where there is no common fold with the metric.
    """
    own, other = trial.by_fold(), reference.by_fold()
    whole = reference.estimate(metric)
    common = [f for f in own if f in other and metric in own[f].metrics and metric in other[f].metrics]
    if not common or whole is None:
        return None
    weights = [float(own[f].n_scored) for f in common]
    differences = [own[f].metrics[metric] - other[f].metrics[metric] for f in common]
    total, n = sum(weights), len(common)
    mean = sum(w * d for w, d in zip(weights, differences, strict=True)) / total
    if n < 2:
        return Estimate(mean=whole.mean + mean, error=None, n_folds=n)
    spread = sum((w / total) ** 2 * (d - mean) ** 2 for w, d in zip(weights, differences, strict=True))
    return Estimate(mean=whole.mean + mean, error=math.sqrt(spread * n / (n - 1)), n_folds=n)
