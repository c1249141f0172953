"""Seeds: one number for a search, and a stable stream for everything that is random in it."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, *path: str | int) -> int:
    """Return the 63-bit seed of one purpose of a search, such as `seed_for(7, "trial", 12)`.

    Equal arguments give equal seeds in every process, whatever the hash seed of Python; different paths give
    independent streams. The path goes through BLAKE2b and, with the seed, through NumPy's SeedSequence.

    Args:
        seed: Seed of the search; zero or more.
        path: What the stream is for. `1` and `"1"` are different.

    Raises:
        ValueError: The seed is negative.
    """
    words = np.random.SeedSequence(_entropy(seed, path)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return the generator of one purpose of a search; see `seed_for`. The caller owns it.

    Raises:
        ValueError: The seed is negative.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(_entropy(seed, path))))


def _entropy(seed: int, path: tuple[str | int, ...]) -> list[int]:
    if seed < 0:
        raise ValueError(f"seed: expected zero or more, found {seed}")
    digest = hashlib.blake2b(repr([(type(part).__name__, str(part)) for part in path]).encode(), digest_size=16)
    return [seed, int.from_bytes(digest.digest(), "little")]
