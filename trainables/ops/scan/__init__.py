"""Scans of state-space models: one choosing function, a sequential judge, a chunked form, the vendor's kernel."""

from __future__ import annotations


def choose_chunk(length: int, d_state: int, headdim: int) -> int:
    """Return the chunk length of the chunked scan for a sequence of `length` rows."""
    return min(length, 128)
