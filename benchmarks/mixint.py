"""Functions of COCO's suite `bbob-mixint` as tasks of search_quality.py: four in five variables are whole numbers.

Source: Tusar, Brockhoff, Hansen (2019), "Mixed-integer benchmark problems for single- and bi-objective optimization".
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cocoex
import numpy as np

FUNCTIONS = (1, 3, 8, 10, 15, 21)
"""Sphere, Rastrigin, Rosenbrock, rotated ellipsoid, rotated Rastrigin, 101 Gaussian peaks."""
TASKS = tuple(f"{function}:{dimension}" for dimension in (5, 10) for function in FUNCTIONS)


class MixedInteger:
    """A function whose optimum is known; its worst is what half of random points are worse than.

    Args:
        function: Number in the suite.
        dimension: 5, 10, 20, 40, 80 or 160.
    """

    def __init__(self, function: int, dimension: int) -> None:
        suite = cocoex.Suite(
            "bbob-mixint", "", f"function_indices:{function} dimensions:{dimension} instance_indices:1"
        )
        self._problem = suite.get_problem(0)
        self.name, low, high = self._problem.id, self._problem.lower_bounds, self._problem.upper_bounds
        n_whole = self._problem.number_of_integer_variables
        self.space = [(f"x{k}", "int" if k < n_whole else "float", low[k], high[k], False) for k in range(dimension)]
        self.optimum = float(self._problem(self._best_point()))
        drawn = low + (high - low) * np.random.default_rng(0).random((2000, dimension))
        self.stat_worst = float(np.median([self._problem(x) for x in drawn]))

    def eval(self, config: Mapping[str, Any], epochs: int | None = None) -> float:
        return float(self._problem(np.array([float(config[row[0]]) for row in self.space])))

    def _best_point(self) -> np.ndarray:
        """Return the optimum, which COCO tells only through a file in the working folder."""
        here = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                self._problem._best_parameter("print")
                return np.loadtxt("._bbob_problem_best_parameter.txt")[: self._problem.dimension]
            finally:
                os.chdir(here)


def get(name: str) -> MixedInteger:
    """Return the task of a name in `TASKS`."""
    function, dimension = map(int, name.split(":"))
    return MixedInteger(function, dimension)
