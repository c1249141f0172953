"""A weight for each feature before the backbone, and the choice of features (FEAT-CB-W).

Letters: B batch, T time, F features of a row, S features that the model sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FeatureScaling(nn.Module):
    """Pick columns and multiply each by its weight.

    Args:
        columns: Positions of the seen features in a row.
        first_scales: Weight of each of them at the start.
        learns: Which of the weights learn; the others stay what they are.
    """

    def __init__(self, columns: Sequence[int], first_scales: Sequence[float], learns: Sequence[bool]) -> None:
        super().__init__()
        learning = [place for place, flag in enumerate(learns) if flag]
        scales_S = torch.tensor(first_scales, dtype=torch.float32)
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("places", torch.tensor(learning, dtype=torch.long), persistent=False)
        self.register_buffer("first_scales", scales_S, persistent=False)
        self.weight = nn.Parameter(scales_S[learning].clone()) if learning else None

    def scales(self) -> Tensor:
        """Return the weights (S,); those that do not learn receive no gradient."""
        if self.weight is None:
            return self.first_scales
        return self.first_scales.index_copy(0, self.places, self.weight.to(self.first_scales.dtype))

    def forward(self, windows_BTF: Tensor) -> Tensor:
        return windows_BTF.index_select(-1, self.columns) * self.scales().to(windows_BTF.dtype)
