"""What the training loop asks of an engine, and the state that every engine can give and take.

The state names each tensor by its parameter and is always complete float32, whatever the engine, the number format or
the ZeRO stage: a checkpoint of one engine continues in the other.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from trainables.config import FamilyConfig
from trainables.training.family import Batch
from trainables.training.workers import ALONE, Workers

EngineName = Literal["auto", "deepspeed", "plain"]
LossFunction = Callable[[Any, Batch], Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's two running means, by the names that PyTorch and DeepSpeed both use."""
BETA1 = 0.9
"""Decay of AdamW's mean of gradients, the same in all of the documents (TRAIN-1)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one optimiser step was: mean loss over its rows and gradient norm before clipping.

    Where either is not finite the step was skipped and the weights are as before.
    """

    loss: float
    gradient_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """Everything an engine needs to go on, on any engine.

    Attributes:
        weights: Parameters and buffers by name; parameters in float32.
        moments: `exp_avg` and `exp_avg_sq` -> parameter name -> float32 tensor; empty before the first update.
        updates: Optimiser updates applied (skipped steps not counted); AdamW's bias correction depends on it.

    The loss scale of fp16 is not part of it: it starts anew and finds its level within a few skipped steps.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Tensor]]
    updates: int


class Engine(Protocol):
    """Trains one model for one fold. Owns the model from its construction to `close`."""

    def train_step(
        self, micro_batches: Sequence[Batch], learning_rate: float, weights: Sequence[float] | None = None
    ) -> Step:
        """Accumulate the gradient of the mean loss over the rows of all processes, clip it, update (TRAIN-6).

        Args:
            micro_batches: Those of this process.
            learning_rate: Of this step.
            weights: See `StepRows.weights`; none: every row of `micro_batches` counts alike.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return parameters (float32) and buffers by name, for evaluation; may alias the live model."""
        ...

    def state(self) -> EngineState:
        """Return what `load` needs; may alias the live model, so write it before the next step."""
        ...

    def load(self, state: EngineState) -> None:
        """Go on from a state; the next steps equal those of the engine that gave it."""
        ...

    def close(self) -> None:
        """Give back memory; the engine is not used afterwards."""
        ...


def open_engine(
    name: EngineName,
    model: nn.Module,
    loss: LossFunction,
    config: FamilyConfig,
    device: torch.device,
    *,
    split: int = 1,
    workers: Workers = ALONE,
) -> Engine:
    """Wrap a model in the engine of that name; `auto` is DeepSpeed where it is installed (TRAIN-16, TRAIN-17).

    Args:
        name: `deepspeed`, `plain` or `auto`.
        model: A fresh float32 model; it is moved to `device`.
        loss: Outputs and micro-batch -> scalar mean loss.
        config: The trial's config; fields of `FamilyConfig` are read.
        device: Where to train.
        split: Parts that each micro-batch of the config comes in, see `StepPlan`.
        workers: The processes that train the model together.

    Raises:
        ImportError: `deepspeed` is asked for and not installed.
        ValueError: The name is unknown.
    """
    if choose_engine(name) == "deepspeed":
        try:
            from trainables.training.deepspeed_engine import DeepSpeedEngine
        except ImportError as error:
            raise ImportError(
                "engine: deepspeed cannot be imported; pip install deepspeed, or set engine: plain"
            ) from error
        return DeepSpeedEngine(model, loss, config, device, split=split, workers=workers)
    from trainables.training.plain_engine import PlainEngine

    return PlainEngine(model, loss, config, device, workers=workers)


def choose_engine(name: EngineName) -> Literal["deepspeed", "plain"]:
    """Return the engine that `name` means on this machine, and log the choice that `auto` made.

    Raises:
        ValueError: The name is unknown.
    """
    if name in ("deepspeed", "plain"):
        return name
    if name != "auto":
        raise ValueError(f"engine: expected auto, deepspeed or plain, found {name!r}")
    chosen: Literal["deepspeed", "plain"] = "deepspeed" if _is_installed("deepspeed") else "plain"
    log.info("engine: auto chose %s (deepspeed is %sinstalled)", chosen, "" if chosen == "deepspeed" else "not ")
    return chosen


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # an import hook that forbids it, such as that of a guard test
        return False


def adamw_settings(config: FamilyConfig) -> dict[str, Any]:
    """Return the arguments of `torch.optim.AdamW` that a config decides: the same for every engine."""
    return {"lr": config.lr, "betas": (BETA1, config.adam_beta2), "weight_decay": config.weight_decay}


def row_weights(micro_batches: Sequence[Batch]) -> list[float]:
    """Return for each micro-batch the factor that makes the mean over micro-batches the mean over rows (TRAIN-6)."""
    sizes = [len(batch.targets) for batch in micro_batches]
    return [size * len(sizes) / sum(sizes) for size in sizes]


def read_moments(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, dict[str, Tensor]], int]:
    """Return AdamW's running means by parameter name and the number of its updates."""
    known = {name: optimizer.state[p] for name, p in parameters.items() if p in optimizer.state}
    moments = {key: {name: state[key] for name, state in known.items()} for key in MOMENTS} if known else {}
    updates = max((int(state["step"]) for state in known.values()), default=0)
    return moments, updates


def write_moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], state: EngineState) -> None:
    """Put running means into an AdamW that holds the parameters themselves."""
    for name, parameter in parameters.items():
        if name in state.moments.get(MOMENTS[0], {}):
            optimizer.state[parameter] = {
                "step": torch.tensor(float(state.updates)),
                **{key: state.moments[key][name].detach().clone().to(parameter) for key in MOMENTS},
            }
