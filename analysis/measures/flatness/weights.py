"""Measures of the documents that look at weights and at the loss curve, not at the loss surface (C-58)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def weight_spectral(parameters: Sequence[Tensor]) -> float | None:
    """Return the mean of the log of the largest singular value over all matrices ([condor-doc] 5.3).

    It is neither flatness nor unchanged by a rescaling; it is here because a document asks for it. Tensors of more than
    two axes are flattened to rows. None without a matrix that is not zero.
    """
    norms = [torch.linalg.matrix_norm(p.detach().float().reshape(len(p), -1), ord=2) for p in parameters if p.ndim > 1]
    logs = [float(torch.log(norm)) for norm in norms if norm > 0]
    return float(np.mean(logs)) if logs else None


def curve_flatness(losses: Sequence[float], *, n_last: int = 5) -> float | None:
    """Return the standard deviation (ddof 1) of the last validation losses; None below two.

    "Flatness of the loss curve" of [condor-doc] 11.2: how still training has become, not how wide the minimum is.
    """
    last = [value for value in losses[-n_last:] if np.isfinite(value)]
    return float(np.std(last, ddof=1)) if len(last) > 1 else None
