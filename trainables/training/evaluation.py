"""What a model is worth on a fold: its score on the scored rows, and the curvature of its loss on training rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.measures import flatness
from analysis.measures.ic import spearman
from trainables.training.batches import Windows
from trainables.training.family import Family, Score
from trainables.training.options import RunOptions
from trainables.training.outputs import as_float32, concatenate
from trainables.training.precision import autocast, twice_differentiable


def score_rows(
    family: Family,
    config: Any,
    model: nn.Module,
    windows: Windows,
    rows: NDArray[np.int64],
    device: torch.device,
    batch_size: int | None = None,
) -> Score:
    """Return the family's score of a model in evaluation mode on `rows`, in their order, `batch_size` at a time."""
    outputs, targets = [], []
    with torch.no_grad():
        for batch in windows.batches(rows, batch_size or config.batch_size):
            with autocast(config.precision, device):
                outputs.append(as_float32(family.forecast(config, model, batch.windows)))
            targets.append(batch.targets.cpu())
        return family.score(config, concatenate(outputs), torch.cat(targets))


def score_metrics(score: Score) -> dict[str, float]:
    """Return the fold's measures; an undefined one is absent. Requirements: ANALYSIS-1, ANALYSIS-2, ANALYSIS-3.

    `val_loss` and `crps` are means over rows, `ic_<h>` the rank correlation of a horizon, `ic` the mean of those that
    are defined. `val_loss` is always there, finite or not.
    """
    metrics = dict(score.metrics)
    if score.crps is not None:
        metrics["crps"] = float(np.mean(score.crps, dtype=np.float64))
    for horizon, (prediction, target) in score.forecasts.items():
        finite = np.isfinite(prediction) & np.isfinite(target)
        correlation = spearman(prediction[finite], target[finite])
        if correlation is not None:
            metrics[f"ic_{horizon}"] = correlation
    correlations = [metrics[f"ic_{horizon}"] for horizon in score.forecasts if f"ic_{horizon}" in metrics]
    if correlations:
        metrics["ic"] = float(np.mean(correlations))
    finite_metrics = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    return {"val_loss": float(np.mean(score.loss, dtype=np.float64)), **finite_metrics}


N_BLOCKS = 16
"""Stretches that a fold's scored timestamps are cut into: enough for a long-run variance, few enough to report."""


def loss_blocks(loss: NDArray[np.float32]) -> tuple[float, ...]:
    """Return the means of a fold's losses over 16 stretches of scored timestamps, equal but for one row (SEARCH-14).

    Args:
        loss: (n,) in time order, the same timestamps for all trials.

    Returns:
        Fewer than 16 where there are fewer rows; nine digits, as many as float32 losses have.
    """
    stretches = np.array_split(np.asarray(loss, dtype=np.float64), min(N_BLOCKS, len(loss)))
    return tuple(float(f"{stretch.mean():.9g}") for stretch in stretches)


def latency_ms(
    model: nn.Module,
    windows: Windows,
    row: NDArray[np.int64],
    device: torch.device,
    *,
    n: int = 20,
    most_s: float = 1.0,
) -> float:
    """Return the median milliseconds of a forward pass of one window, on one thread of the CPU or on the GPU.

    The model is the float32 one in evaluation mode that scores the fold. The window lies on the device before the clock
    starts; features are not computed. Three passes warm up.

    Args:
        model: In evaluation mode.
        windows: Source of the row.
        row: (1,) a row.
        device: Where the model is.
        n: Passes that are timed, at most.
        most_s: Seconds after which no further pass begins; one is always timed.
    """
    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    threads = torch.get_num_threads()
    times: list[float] = []
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            window = windows.batch(row).windows
            begun = time.perf_counter()
            for turn in range(n + 3):
                started = time.perf_counter()
                model(window)
                wait()
                times.append(time.perf_counter() - started)
                if turn >= 3 and times[-1] + started - begun > most_s:
                    break
    finally:
        torch.set_num_threads(threads)
    return 1e3 * float(np.median(times[3:]))


def sample_rows(rows: NDArray[np.int64], n: int, fold: int) -> NDArray[np.int64]:
    """Return at most `n` of `rows` in time order: the same for all trials with these rows, whatever their seed."""
    if len(rows) <= n:
        return rows
    return np.sort(np.random.default_rng(fold).choice(rows, size=n, replace=False))


def training_metrics(
    family: Family, config: Any, model: nn.Module, windows: Windows, rows: NDArray[np.int64], *, flatness_steps: int
) -> dict[str, float]:
    """Return reference loss and flatness on training rows. Requirement: ANALYSIS-6.

    Args:
        family: Gives the reference loss, the same as that of validation.
        config: The trial's config.
        model: Float32, in evaluation mode.
        windows: Source of the rows.
        rows: (n,) training rows, taken as one batch.
        flatness_steps: Lanczos steps; 0 leaves flatness out.

    Returns:
        `train_loss`, and where it is positive the measures of `_flatness`.
    """
    batch = windows.batch(rows)

    def loss() -> Tensor:
        return family.reference_loss(config, as_float32(model(batch.windows)), batch).mean()

    with torch.no_grad():
        train_loss = float(loss())
    if not math.isfinite(train_loss):
        return {}
    if flatness_steps == 0 or train_loss <= 0:
        return {"train_loss": train_loss}
    with twice_differentiable():
        found = _flatness(loss, [p for p in model.parameters() if p.requires_grad], flatness_steps, train_loss)
    return {"train_loss": train_loss} | {n: v for n, v in found.items() if v is not None and math.isfinite(v)}


GRADIENTS_OF_FLATNESS = 37
"""Gradients that `_flatness` costs, beside four for each Lanczos step: 3 for the gate and the losses that are checked,
16 for eight products of traces, 3 steps of ascent, and 20 losses at half to two thirds of a gradient."""


def flatness_rows(n_train: int, options: RunOptions) -> int:
    """Return on how many rows flatness is measured: at most the allowed share of the gradients of one epoch.

    It depends on the fold alone, not on a trial's epochs or batches, so that trials are compared on the same rows; and
    it counts gradients, not seconds, so that it is the same on every machine.

    Args:
        n_train: Training rows of the fold.
        options: `flatness_samples`, `flatness_least_samples`, `flatness_cost_frac` and `flatness_steps`.
    """
    gradients = GRADIENTS_OF_FLATNESS + 4 * options.flatness_steps
    affordable = int(options.flatness_cost_frac * n_train / gradients)
    return min(options.flatness_samples, max(options.flatness_least_samples, affordable))


def _flatness(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor], steps: int, level: float
) -> dict[str, float | None]:
    """Return every measure of flatness, smaller is flatter; curvatures are divided by the loss `level`.

    `flatness` is the top eigenvalue; `flatness_adaptive` and `flatness_relative` cannot be changed by a rescaling of
    weights; `flatness_low_pass`, `_sam` and `_random` see losses whose curvature is zero.
    """
    product = flatness.gated_product(loss, parameters, seed=0)
    top, adaptive = (
        flatness.top_eigenvalue(loss, parameters, n_steps=steps, seed=0, is_adaptive=k, product=product)
        for k in (False, True)
    )
    trace, relative = (
        measure(loss, parameters, n_probes=4, seed=0, product=product)
        for measure in (flatness.trace, flatness.relative_flatness)
    )
    smooth, random = flatness.low_pass(loss, parameters, seed=0), flatness.random_sharpness(loss, parameters, seed=0)
    return {
        "flatness": top.relative,
        "flatness_adaptive": adaptive.relative,
        "flatness_trace": trace.value / level,
        "flatness_relative": relative.value / level,
        "flatness_low_pass": smooth and smooth.value,
        "flatness_sam": flatness.sam_sharpness(loss, parameters),
        "flatness_random": random and random.value,
        "weight_spectral": flatness.weight_spectral(parameters),
    }
