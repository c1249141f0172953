"""The DeepSpeed engine: the only file that imports deepspeed. One process needs no agreed port and no compiler.

Recipe for a CPU, measured with deepspeed 0.19.8 (pinned, because the recipe touches one private table): the process
group meets in a `HashStore`; the shared-memory extension, which training never calls, is declared absent so that it is
not compiled; the optimiser is PyTorch's own AdamW, so that no fused optimiser is compiled either.
"""

from __future__ import annotations

import gc
import math
import os
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else the import probes for devices and warns

import deepspeed
from deepspeed.utils import (
    lazy_init_hp_params_optimizer_state,
    logger,
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)

from trainables.config import FamilyConfig
from trainables.training.engine import (
    MOMENTS,
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
from trainables.training.workers import ALONE, Workers, mean_over_workers

DEEPSPEED_BUCKET = 500_000_000
"""DeepSpeed's own size of ZeRO's buffers, in numbers; larger ones would be rarer exchanges of large models."""
BUCKET_MULTIPLE = 1_000
"""They must be even."""
QUIET = 40
"""Level of DeepSpeed's own logger: it announces every engine, and every skipped step, which the loop counts itself."""


def ds_config(config: FamilyConfig, *, world_size: int = 1, split: int = 1) -> dict[str, Any]:
    """Return the DeepSpeed configuration of a trial. Requirements: TRAIN-4, TRAIN-8, TRAIN-16.

    `split` is the number of parts that each micro-batch comes in after it did not fit into memory.

    Learning rate and weight decay are absent: the optimiser is ours, and its rate is set before every step. bf16 at
    stage 0 is autocast over float32 weights; from stage 1 on DeepSpeed keeps bf16 weights beside a float32 master copy.

    Raises:
        ValueError: fp16 at stage 0, for which DeepSpeed offers no master copy that can be checkpointed.
    """
    micro_batch, n_micro_batches = math.ceil(config.batch_size / split), config.accum_steps * split
    settings: dict[str, Any] = {
        "train_batch_size": micro_batch * n_micro_batches * world_size,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": n_micro_batches,
        "gradient_clipping": config.grad_clip,
        "zero_optimization": {"stage": config.zero_stage, **_buckets(config)},
        "zero_allow_untested_optimizer": True,
    }
    if config.precision == "bf16" and config.zero_stage == 0:
        settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif config.precision == "bf16":
        settings["bf16"] = {"enabled": True}
    elif config.precision == "fp16" and config.zero_stage == 0:
        raise ValueError("zero_stage: expected 1, 2 or 3 with precision fp16 on deepspeed, found 0; set zero_stage: 1")
    elif config.precision == "fp16":
        settings["fp16"] = {"enabled": True}
    return settings


def _buckets(config: FamilyConfig) -> dict[str, int]:
    """Return the sizes of ZeRO's buffers, in numbers: hardly more than the model has.

    DeepSpeed would allocate half a billion of them for every bucket of every process: 2 GB beside a small model.
    """
    if config.zero_stage == 0:
        return {}
    size = min(DEEPSPEED_BUCKET, math.ceil(config.n_parameters() / BUCKET_MULTIPLE) * BUCKET_MULTIPLE)
    return {"reduce_bucket_size": size, "allgather_bucket_size": size}


def join_process_group(device: torch.device) -> None:
    """Make a group of one process where there is none; no port is agreed on, so trials side by side cannot collide.

    Where a trial has several processes, Ray Train has made their group before.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.environ.setdefault("LOCAL_RANK", "0")
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


@cache
def _spare_imports_from_collection() -> None:
    """Take what the imports made out of garbage collection, once, after the first engine is gone.

    Later collections then look at what is new only, and closing an engine takes no time; before, each took 0.3 s.
    """
    gc.freeze()


class DeepSpeedEngine:
    """One deepspeed engine over PyTorch's AdamW. See `trainables.training.engine.Engine`."""

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        config: FamilyConfig,
        device: torch.device,
        *,
        split: int = 1,
        workers: Workers = ALONE,
    ) -> None:
        logger.setLevel(QUIET)
        join_process_group(device)
        self._loss = loss
        self._workers = workers
        self._names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, **adamw_settings(config))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # stages 1-3 import code that torch deprecates
            self._engine, *_ = deepspeed.initialize(
                model=model.to(device).train(),
                optimizer=optimizer,
                config=ds_config(config, world_size=workers.size, split=split),
                dist_init_required=False,
            )
        self._is_partitioned = config.zero_stage > 0
        if not self._is_partitioned and workers.size == 1:
            # A sum over one process, and half the time of a small model's step.
            self._engine.enable_backward_allreduce = False
        self._input_dtype = next(model.parameters()).dtype

    def train_step(
        self, micro_batches: Sequence[Batch], learning_rate: float, weights: Sequence[float] | None = None
    ) -> Step:
        engine = self._engine
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate
        total = torch.zeros((), device=engine.device)
        for batch, weight in zip(micro_batches, weights or row_weights(micro_batches), strict=True):
            loss = self._loss(as_float32(engine(batch.windows.to(self._input_dtype))), batch) * weight
            engine.backward(loss)
            if engine.is_gradient_accumulation_boundary() and not self._is_partitioned:
                norm = self._norm_or_skip()
            else:
                engine.step()
            total += loss.detach()
        if self._is_partitioned:
            norm = float(engine.get_global_grad_norm())
        total = mean_over_workers(self._workers, total)
        return Step(loss=total.item() / len(micro_batches), gradient_norm=norm)

    def _norm_or_skip(self) -> float:
        """Update at stage 0 and return the norm of the gradient before clipping; a non-finite gradient is not applied.

        Stages 1-3 do both themselves; at stage 0 DeepSpeed neither reports the norm nor looks for NaN.
        """
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients).item()
        if math.isfinite(norm):
            self._engine.step()
        else:
            self._engine.zero_grad()
            self._engine.micro_steps += 1  # what `step` would have counted
        return norm

    def _parameters(self) -> dict[str, nn.Parameter]:
        named = dict(self._engine.module.named_parameters())
        return {name: named[name] for name in self._names}

    def weights(self) -> dict[str, Tensor]:
        module = self._engine.module
        if not self._is_partitioned:
            return {name: tensor.detach() for name, tensor in module.state_dict().items()}
        master = {name: safe_get_full_fp32_param(p).detach() for name, p in self._parameters().items()}
        rest = {name: t.detach() for name, t in module.state_dict().items() if name not in master}
        return {**master, **{n: t.float() if t.is_floating_point() else t for n, t in rest.items()}}

    def state(self) -> EngineState:
        parameters = self._parameters()
        if not self._is_partitioned:
            moments, updates = read_moments(self._engine.basic_optimizer, parameters)
            return EngineState(weights=self.weights(), moments=moments, updates=updates)
        partitions = self._engine.basic_optimizer.state
        updates = max((int(state["step"]) for state in partitions.values()), default=0)
        moments = {
            key: {name: safe_get_full_optimizer_state(p, key) for name, p in parameters.items()}
            for key in (MOMENTS if updates else ())
        }
        return EngineState(weights=self.weights(), moments=moments, updates=updates)

    def load(self, state: EngineState) -> None:
        module, parameters = self._engine.module, self._parameters()
        with torch.no_grad(), deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=0):
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if name in state.weights:
                    tensor.copy_(state.weights[name])
        if not self._is_partitioned:
            write_moments(self._engine.basic_optimizer, parameters, state)
            return
        self._prime_moments(state.updates)
        for name, parameter in parameters.items():
            safe_set_full_fp32_param(parameter, state.weights[name].to(self._engine.device, torch.float32))
            for key, values in state.moments.items():
                safe_set_full_optimizer_state(parameter, values[name].to(self._engine.device), key)

    def _prime_moments(self, updates: int) -> None:
        """Make the partitions' running means exist, which DeepSpeed otherwise creates with the first update."""
        if updates == 0:
            return
        wrapper, states = self._engine.optimizer, self._engine.basic_optimizer.state
        is_stage_3 = hasattr(wrapper, "fp32_partitioned_groups_flat")
        partitions = wrapper.fp32_partitioned_groups_flat if is_stage_3 else wrapper.single_partition_of_fp32_groups
        for partition in partitions:
            means = {key: torch.zeros_like(partition) for key in MOMENTS}
            states[partition] = {"step": torch.tensor(float(updates)), **means}
        if not is_stage_3:
            for own, partition in zip(wrapper.bit16_groups, partitions, strict=True):
                lazy_init_hp_params_optimizer_state(own, partition, states)

    def close(self) -> None:
        """Destroy the engine and collect it: engines are cyclic garbage, and destroying alone frees nothing.

        A stage-3 engine stays reachable from C++ gradient hooks even then; it is emptied, so that only a shell remains.
        """
        engine, self._engine = self._engine, None
        engine.destroy()
        if hasattr(engine.optimizer, "fp32_partitioned_groups_flat"):
            for parameter in engine.module.parameters():
                vars(parameter).clear()
                parameter.data = torch.empty(0)
            vars(engine.optimizer).clear()
            vars(engine).clear()
        del engine
        gc.collect()
        _spare_imports_from_collection()
