import tracemalloc

import numpy as np
import pytest
import torch

from tests.trainables.data.datasets import make_dataset
from trainables.data.windows import gather, history_length, windows_view


@pytest.fixture
def features():
    return np.arange(50 * 3, dtype=np.float32).reshape(50, 3)


@pytest.mark.requirement("DATA-20")
def test_windows_share_the_memory_of_the_rows(features):
    view = windows_view(features, 7)
    assert view.shape == (44, 7, 3)
    assert np.shares_memory(view, features)
    np.testing.assert_array_equal(view[5], features[5:12])


@pytest.mark.requirement("DATA-20")
def test_windows_take_no_memory_of_their_own():
    rows = np.zeros((200_000, 8), dtype=np.float32)
    tracemalloc.start()
    view = windows_view(rows, 120)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(view) == 200_000 - 120 + 1
    assert peak < 0.05 * rows.nbytes


@pytest.mark.requirement("DATA-20")
@pytest.mark.parametrize("lookback", [1, 7, 50])
def test_gather_equals_slices(features, lookback):
    ends = np.array([49, lookback - 1, 49])
    batch = gather(features, ends, lookback)
    for window, end in zip(batch.numpy(), ends, strict=True):
        np.testing.assert_array_equal(window, features[end - lookback + 1 : end + 1])


def test_gather_writes_into_the_buffer_that_it_is_given(features):
    out = torch.full((2, 4, 3), float("nan"))
    assert gather(features, np.array([3, 10]), 4, out=out) is out
    np.testing.assert_array_equal(out[1].numpy(), features[7:11])


def test_gather_reads_a_read_only_memory_map(features, tmp_path):
    np.save(tmp_path / "f.npy", features)
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")
    np.testing.assert_array_equal(gather(mapped, np.array([9]), 10)[0].numpy(), features[:10])


@pytest.mark.parametrize("end", [2, 50])
def test_gather_refuses_a_window_outside_the_rows(features, end):
    with pytest.raises(ValueError, match="expected 3 to 49"):
        gather(features, np.array([end]), 4)


def test_history_counts_complete_rows_within_a_segment():
    dataset = make_dataset(8, segment=np.array([0, 0, 0, 0, 0, 1, 1, 1]))
    dataset.features[2, 0] = np.nan
    np.testing.assert_array_equal(history_length(dataset), [1, 2, 0, 1, 2, 1, 2, 3])


def test_a_batch_buffer_that_does_not_fit_is_refused_before_anything_is_written():
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    ends = np.array([3, 5])
    for out in (torch.zeros(2, 3, 3), torch.zeros(2, 2, 3).swapaxes(1, 2), torch.zeros(2, 3, 2, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"out: expected float32 \(2, 3, 2\), contiguous"):
            gather(rows, ends, 3, out=out)
        assert not out.any()
    with pytest.raises(ValueError, match="features: expected float32"):
        gather(rows.astype(np.float64), ends, 3)
