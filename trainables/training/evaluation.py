"""What a model is worth on a fold: its score on the scored rows, and the curvature of its loss on training rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.measures.flatness import top_eigenvalue
from analysis.measures.ic import spearman
from trainables.training.batches import Windows
from trainables.training.family import Family, Score
from trainables.training.outputs import as_float32, concatenate
from trainables.training.precision import autocast, twice_differentiable


def score_rows(
    family: Family, config: Any, model: nn.Module, windows: Windows, rows: NDArray[np.int64], device: torch.device
) -> Score:
    """Return the family's score of a model in evaluation mode on `rows`, in their order."""
    outputs, targets = [], []
    with torch.no_grad():
        for batch in windows.batches(rows, config.batch_size):
            with autocast(config.precision, device):
                outputs.append(as_float32(model(batch.windows)))
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
    """Return reference loss and relative curvature on training rows. Requirement: ANALYSIS-6.

    Args:
        family: Gives the reference loss, the same as that of validation.
        config: The trial's config.
        model: Float32, in evaluation mode.
        windows: Source of the rows.
        rows: (n,) training rows, taken as one batch.
        flatness_steps: Lanczos steps; 0 leaves curvature out.

    Returns:
        `train_loss`; where the loss is positive `flatness` = top Hessian eigenvalue / loss, and `flatness_adaptive`,
        the form of it that a rescaling of weights cannot change (Kwon et al. 2021).
    """
    batch = windows.batch(rows)

    def loss() -> Tensor:
        return family.reference_loss(config, as_float32(model(batch.windows)), batch).mean()

    with torch.no_grad():
        train_loss = float(loss())
    if not math.isfinite(train_loss):
        return {}
    if flatness_steps == 0:
        return {"train_loss": train_loss}
    with twice_differentiable():
        parameters = [p for p in model.parameters() if p.requires_grad]
        curvatures = {
            "flatness": top_eigenvalue(loss, parameters, n_steps=flatness_steps, seed=0),
            "flatness_adaptive": top_eigenvalue(loss, parameters, n_steps=flatness_steps, seed=0, is_adaptive=True),
        }
    relative = {name: curvature.relative for name, curvature in curvatures.items()}
    return {"train_loss": train_loss} | {n: v for n, v in relative.items() if v is not None and math.isfinite(v)}
