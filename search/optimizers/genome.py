"""A space as rows of numbers: many configs at once, without a dict each.

A gene is the place of one free parameter in the unit interval. A row of genes always holds a number for every free
parameter of more than one value; `express` snaps them to allowed values and blanks (NaN) those that do not exist.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.parameters import Choice, Fixed, Int, Kind
from search.space import Space
from search.trial import Config

Array = NDArray[np.float64]


class Genome:
    """The free parameters of a space that have more than one value.

    Args:
        space: What may vary.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.names = tuple(n for n in space.free if space.parameters[n].size != 1)
        self.kinds: tuple[Kind, ...] = tuple(space.parameters[n] for n in self.names)
        self._position = {name: column for column, name in enumerate(self.names)}
        self._sizes = tuple(kind.size for kind in self.kinds)
        self._is_log_int = tuple(isinstance(kind, Int) and kind.log for kind in self.kinds)
        self.is_choice = np.array([isinstance(kind, Choice) for kind in self.kinds], bool)
        self.steps = np.array([0.0 if size is None else 1 / size for size in self._sizes])
        self._conditions = {name: self._conditions_of(name) for name in space.free}
        self.groups = np.array([c for c, n in enumerate(self.names) for _ in range(self._width(c))], np.intp)

    @property
    def n_genes(self) -> int:
        return len(self.names)

    def express(self, genes: Array) -> Array:
        """Return (m, d) genes as centres of allowed values, NaN where the parameter does not exist."""
        snapped = self.snap(genes)
        exists: dict[str, NDArray[np.bool_]] = {}
        for name in self.space.free:
            exists[name] = np.ones(len(genes), bool)
            for parent, column, ranks in self._conditions[name]:
                allowed = exists[parent]
                if column >= 0:
                    size = self._sizes[column] or 1
                    rank = self._rank(snapped[:, column], column, size)
                    allowed = allowed & np.isin(rank, ranks)
                exists[name] &= allowed
        for column, name in enumerate(self.names):
            snapped[~exists[name], column] = np.nan
        return snapped

    def snap(self, genes: Array) -> Array:
        """Return (m, d) genes moved to the centre of the value in whose cell they lie."""
        snapped = np.clip(genes, 0.0, 1.0)
        for column, (size, kind) in enumerate(zip(self._sizes, self.kinds, strict=True)):
            if self._is_log_int[column]:
                assert isinstance(kind, Int)
                low, high = math.log(kind.low - 0.5), math.log(kind.high + 0.5)
                values = np.clip(np.rint(np.exp(low + (high - low) * snapped[:, column])), kind.low, kind.high)
                snapped[:, column] = (np.log(values) - low) / (high - low)
            elif size is not None:
                ranks = np.minimum(np.floor(snapped[:, column] * size), size - 1)
                snapped[:, column] = (ranks + 0.5) / size
        return snapped

    def features(self, expressed: Array) -> Array:
        """Return (m, q) inputs of a surrogate; column j belongs to gene `groups[j]`.

        An ordered gene is itself, and 1/2 where it does not exist: its parent, which is an input too, tells those
        apart. A choice is a unit vector over root 2, so that two values are at distance 1; 0 where it does not exist.
        """
        places = np.where(np.isnan(expressed), np.where(self.is_choice, -1.0, 0.5), expressed)
        columns = []
        for column, size in enumerate(self._sizes):
            gene = places[:, column, None]
            if self.is_choice[column]:
                assert size is not None
                columns.append((np.floor(gene * size) == np.arange(size)) / math.sqrt(2))
            else:
                columns.append(gene)
        return np.hstack(columns) if columns else np.zeros((len(expressed), 0))

    def encode(self, config: Config) -> Array:
        """Return the (d,) genes of a config, NaN where a parameter does not exist."""
        return np.array(
            [k.to_unit(config[n]) if n in config else np.nan for n, k in zip(self.names, self.kinds, strict=True)]
        )

    def decode(self, genes: Array) -> dict[str, Any]:
        """Return the config of (d,) genes; NaN stands for the middle."""
        places = dict(zip(self.names, np.nan_to_num(genes, nan=0.5), strict=True))
        return self.space.decode(np.array([places.get(name, 0.5) for name in self.space.free]))

    def _width(self, column: int) -> int:
        return (self._sizes[column] or 1) if self.is_choice[column] else 1

    def _rank(self, genes: Array, column: int, size: int) -> Array:
        if self._is_log_int[column]:
            kind = self.kinds[column]
            assert isinstance(kind, Int)
            low, high = math.log(kind.low - 0.5), math.log(kind.high + 0.5)
            return np.rint(np.exp(low + (high - low) * genes)) - kind.low
        return np.floor(genes * size)

    def _conditions_of(self, name: str) -> list[tuple[str, int, list[int]]]:
        """Return (parent, its column or -1 where it has one value, ranks that it must have) for what can vary."""
        found = []
        for parent, allowed in self.space.parameters[name].conditions.items():
            kind = self.space.parameters[parent]
            if isinstance(kind, Fixed):
                continue
            ranks = [kind.rank(value) for value in allowed if kind.objection(value) is None]
            found.append((parent, self._position.get(parent, -1), ranks))
        return found


def key(expressed: Array) -> bytes:
    """Return what makes a row of expressed genes the same as another."""
    return np.round(np.nan_to_num(expressed, nan=-1.0), 9).tobytes()
