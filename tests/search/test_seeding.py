"""Seeds are stable across processes and independent across purposes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from search.seeding import generator, seed_for

ROOT = Path(__file__).parents[2]


def test_equal_paths_give_equal_seeds_and_streams():
    assert seed_for(7, "trial", 12) == seed_for(7, "trial", 12)
    np.testing.assert_array_equal(generator(7, "a").random(5), generator(7, "a").random(5))


def test_paths_that_differ_give_different_seeds():
    paths = [(), ("a",), ("b",), ("a", 1), ("a", "1"), (1, "a"), ("a,1",), ("a", 1, 2), ("a", 12)]
    assert len({seed_for(s, *path) for path in paths for s in (0, 1, 2**40)}) == 3 * len(paths)


def test_seeds_fit_a_signed_64_bit_column():
    seeds = [seed_for(s, "trial") for s in range(200)]
    assert 0 <= min(seeds)
    assert max(seeds) < 2**63


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="expected zero or more, found -1"):
        seed_for(-1)


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_another_process_with_another_hash_seed_gives_the_same(hash_seed):
    code = "from search.seeding import seed_for, generator; print(seed_for(7, 'x', 3), generator(7, 'x').random())"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == [str(seed_for(7, "x", 3)), str(generator(7, "x").random())]


def test_streams_of_neighbouring_trials_are_uncorrelated():
    draws = np.array([generator(0, "trial", k).standard_normal(400) for k in range(20)])
    correlations = np.corrcoef(draws)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(400)  # five standard errors of a zero correlation
