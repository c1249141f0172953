"""The plain PyTorch engine: a dozen lines that a reader can check, and the judge of the DeepSpeed engine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.config import FamilyConfig
from trainables.training.engine import (
    EngineState,
    LossFunction,
    Step,
    adamw_settings,
    read_moments,
    row_weights,
    write_moments,
)
from trainables.training.family import Batch
from trainables.training.outputs import as_float32
from trainables.training.precision import autocast
from trainables.training.workers import ALONE, Workers, average_gradients, mean_over_workers


class PlainEngine:
    """AdamW, accumulation, clipping by global norm; fp16 with a loss scale. See `trainables.training.engine.Engine`."""

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        config: FamilyConfig,
        device: torch.device,
        *,
        workers: Workers = ALONE,
    ) -> None:
        self._model = model.to(device).train()
        self._loss = loss
        self._config = config
        self._device = device
        self._workers = workers
        self._parameters = {n: p for n, p in self._model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(self._parameters.values(), **adamw_settings(config))
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def train_step(
        self, micro_batches: Sequence[Batch], learning_rate: float, weights: Sequence[float] | None = None
    ) -> Step:
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._device)
        for batch, weight in zip(micro_batches, weights or row_weights(micro_batches), strict=True):
            with autocast(self._config.precision, self._device):
                outputs = as_float32(self._model(batch.windows))
            loss = self._loss(outputs, batch) * (weight / len(micro_batches))
            self._scaler.scale(loss).backward()
            total += loss.detach()
        average_gradients(self._workers, self._parameters.values())
        total = mean_over_workers(self._workers, total)
        return Step(loss=total.item(), gradient_norm=self._update(learning_rate))

    def _update(self, learning_rate: float) -> float:
        """Clip and apply the accumulated gradient; return its norm before clipping. A non-finite one is not applied."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), self._config.grad_clip).item()
        if math.isfinite(norm):
            self._scaler.step(self._optimizer)
        self._scaler.update()
        return norm

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self._model.state_dict().items()}

    def state(self) -> EngineState:
        moments, updates = read_moments(self._optimizer, self._parameters)
        return EngineState(weights=self.weights(), moments=moments, updates=updates)

    def load(self, state: EngineState) -> None:
        self._model.load_state_dict(dict(state.weights))
        write_moments(self._optimizer, self._parameters, state)

    def close(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
