"""The production backbone on a GPU: sizes, agreement of the forms of the scan, share of the limit.

Runs on a bare machine that has torch, triton and pytest: `python -m pytest -s tests/gpu`. It prints figures and holds
them to no aim, for a shared GPU is no judge; `python -m benchmarks.train_step --device cuda` is what is reported.
"""

import pytest
import torch

from benchmarks.train_step import CUDA_SIZES, bytes_per_token, flops_per_token, our_stack, timed, train_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
SIZE = CUDA_SIZES[120]


def small_stack(impl, layers=2):
    torch.manual_seed(0)
    return our_stack(SIZE._replace(layers=layers), impl=impl).cuda()


@pytest.mark.requirement("CONDOR-7")
def test_the_stack_has_the_parameters_of_the_production_preset():
    assert sum(p.numel() for p in our_stack(SIZE).parameters()) == pytest.approx(41.3e6, rel=0.005)


@pytest.mark.requirement("CONDOR-4")
def test_a_stack_on_the_one_chunk_kernels_equals_the_chunked_one():
    pytest.importorskip("triton")
    x = torch.randn(4, 120, SIZE.width, device="cuda")
    found = []
    for impl in ("one_chunk", "chunked"):
        model = small_stack(impl)
        y = model(x)
        y.square().mean().backward()
        found.append([y.detach(), *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.isfinite(one).all()
        assert (one - other).abs().max() <= 1e-3 * other.abs().max()


@pytest.mark.requirement("TRAIN-14")
@pytest.mark.parametrize("impl", ["auto", "one_chunk"])
def test_tokens_per_second_are_a_share_of_the_limit(impl):
    """A share above one would mean that operations or bytes are miscounted."""
    x = torch.randn(SIZE.batch, SIZE.length, SIZE.width, device="cuda")
    step = train_step(our_stack(SIZE, impl=impl), x)
    seconds = sorted(timed(step, "cuda") for _ in range(13))[6]
    compute, memory = flops_per_token(SIZE) / 790e12, bytes_per_token(SIZE) / 4.3e12
    share = max(compute, memory) * SIZE.tokens / seconds
    print(f"{impl}: {SIZE.tokens / seconds:,.0f} tokens/s, {share:.0%} of what an H200 allows")
    assert 0 < share < 1
