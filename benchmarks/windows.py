"""`python -m benchmarks.windows`: batches of windows by `gather`, against what one would write, and a plain copy.

A batch of 1,024 windows of 128 rows of 52 features, at random ends. `memcpy` copies as many bytes in a row, between
two buffers of the batch's size: no gather can be faster. CPU time, the workers' included; against the DataLoader also
wall time. One JSON line. `added_trial_mib` is the memory that a second process takes for itself while it gathers from
the map that a first one has read: what one more trial on a node costs.
"""

from __future__ import annotations

import os

from benchmarks.measure import THREADS, interleaved, peak_mib, report_peak

os.environ.update(dict.fromkeys(THREADS, "1"))

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch.utils.data import DataLoader, Dataset

from trainables.data.store import FeatureStore
from trainables.data.windows import gather


class Windows(Dataset):
    """The usual map-style dataset of windows."""

    def __init__(self, features, lookback) -> None:
        self.features = torch.from_numpy(features)
        self.lookback = lookback

    def __len__(self) -> int:
        return len(self.features) - self.lookback + 1

    def __getitem__(self, start):
        return self.features[start : start + self.lookback]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=52)
    parser.add_argument("--lookback", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--turns", type=int, default=5, help="how often loader and the rest take turns")
    parser.add_argument("--loader-batches", type=int, default=40)
    parser.add_argument("--memory", action="store_true", help="print the peak of ten batches over the data, MiB")
    parser.add_argument("--added-trial", metavar="FILE", help="print what gathering from this map takes, MiB")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.added_trial:
        print(_private_mib_of_gathering(options))
        return
    random = np.random.default_rng(0)
    features = random.standard_normal((options.rows, options.features), dtype=np.float32)
    shape = (options.batch, options.lookback, options.features)
    out = torch.empty(shape)
    ends = random.integers(options.lookback - 1, options.rows, options.batch)

    def ours():
        return gather(features, ends, options.lookback, out=out)

    if options.memory:
        ours()
        report_peak(lambda: [ours() for _ in range(10)])
        return
    view = sliding_window_view(features, options.lookback, axis=0)
    source = torch.randn(shape)
    target = torch.empty(shape)

    def sliding():
        return torch.from_numpy(np.ascontiguousarray(view[ends - (options.lookback - 1)].swapaxes(1, 2)))

    windows = Windows(features, options.lookback)

    def collate():
        return torch.stack([windows[start] for start in (ends - (options.lookback - 1)).tolist()])

    assert torch.equal(ours(), sliding())
    assert torch.equal(ours(), collate())
    candidates = {"ours": ours, "memcpy": lambda: target.copy_(source), "sliding": sliding, "collate": collate}
    turns = []
    for _ in range(options.turns):
        turns.append(interleaved(candidates, options.repeats))
        turns[-1]["ours_wall"] = interleaved({"ours": ours}, options.repeats, clock=time.perf_counter)["ours"]
        wall, cpu = _loader_seconds(windows, options)
        turns[-1] |= {"dataloader_2_workers_wall": wall, "dataloader_2_workers": cpu}
    rate = {name: options.batch / statistics.median(turn[name] for turn in turns) for name in turns[0]}
    batch_mib = out.nbytes / 2**20
    print(
        json.dumps(
            {
                "benchmark": "windows",
                "batch": shape,
                "windows_per_s": {name: round(value) for name, value in rate.items()},
                "share_of_memcpy": round(rate["ours"] / rate["memcpy"], 3),
                "ratio_to_dataloader": round(rate["ours"] / rate["dataloader_2_workers"], 1),
                "ratio_to_dataloader_wall": round(rate["ours_wall"] / rate["dataloader_2_workers_wall"], 1),
                "ratio_to_sliding": round(rate["ours"] / rate["sliding"], 1),
                "ratio_to_collate": round(rate["ours"] / rate["collate"], 1),
                "batch_mib": round(batch_mib, 1),
                "data_mib": round(features.nbytes / 2**20),
                "added_trial_mib": round(added := _added_trial_mib(features), 1),
                "added_trial_over_data": round(added / (features.nbytes / 2**20), 4),
                "extra_peak_mib": round(peak_mib("benchmarks.windows", "--memory", "--rows", str(options.rows)), 1),
            }
        )
    )


def _loader_seconds(windows: Windows, options) -> tuple[float, float]:
    """Return wall and CPU seconds per batch of a shuffled DataLoader with two workers, theirs included."""
    n_batches = options.loader_batches
    chosen = torch.randperm(len(windows))[: options.batch * n_batches].tolist()
    begin, cpu = time.perf_counter(), _cpu_seconds()
    for _ in DataLoader(windows, batch_size=options.batch, sampler=chosen, num_workers=2):
        pass
    return (time.perf_counter() - begin) / n_batches, (_cpu_seconds() - cpu) / n_batches


def _added_trial_mib(features) -> float:
    """Return the private memory that a process takes to gather from a store's map which this one has in memory."""
    with tempfile.TemporaryDirectory() as folder:
        FeatureStore(Path(folder)).get("features", lambda: {"features": features})
        path = Path(folder) / "features" / "features.npy"
        held = np.load(path, mmap_mode="r")
        held.sum()
        return peak_mib("benchmarks.windows", "--added-trial", str(path))


def _private_mib_of_gathering(options) -> float:
    shape = (options.batch, options.lookback, options.features)
    out = torch.zeros(shape)
    small = np.zeros((options.lookback, options.features), dtype=np.float32)
    gather(small, np.full(options.batch, options.lookback - 1), options.lookback, out=out)  # compiled, buffer touched
    before = _private_kib()
    features = np.load(options.added_trial, mmap_mode="r")
    random = np.random.default_rng(0)
    for _ in range(100):
        gather(features, random.integers(options.lookback - 1, len(features), options.batch), options.lookback, out=out)
    return (_private_kib() - before) / 1024


def _private_kib() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _cpu_seconds() -> float:
    """Return CPU seconds of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
