from __future__ import annotations

import pytest
import torch

from trainables.training.precision import apply_flags, autocast, check_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _flags_restored():
    yield
    apply_flags("fp32", deterministic=False)


@pytest.mark.requirement("TRAIN-9")
@pytest.mark.parametrize(("precision", "tf32"), [("bf16", True), ("tf32", True), ("fp32", False)])
@pytest.mark.parametrize("deterministic", [False, True])
def test_flags_follow_precision_and_determinism(precision, tf32, deterministic):
    apply_flags(precision, deterministic=deterministic)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.are_deterministic_algorithms_enabled() is deterministic


@pytest.mark.requirement("TRAIN-8")
def test_bf16_has_the_range_of_float32_and_eight_bits_of_precision():
    assert torch.tensor(3e38, dtype=torch.bfloat16).isfinite()
    assert torch.tensor(1 + 2**-9, dtype=torch.bfloat16) == 1
    with autocast("bf16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16


@pytest.mark.requirement("TRAIN-8")
def test_formats_that_the_device_cannot_compute_in_are_refused(monkeypatch):
    for precision in ("fp32", "bf16"):
        check_precision(precision, CPU)
    for precision in ("tf32", "fp16"):
        with pytest.raises(ValueError, match=f"expected a CUDA device for {precision}, found cpu"):
            check_precision(precision, CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "T4")
    with pytest.raises(ValueError, match=r"for bf16, found T4 \(7\.5\); use fp32 or fp16"):
        check_precision("bf16", torch.device("cuda"))
