"""Worlds for simulated searches whose truth is known: a mixed, conditional space under fold effects and heavy noise."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from search.parameters import Choice, Fixed, Float, Int, Ordered
from search.seeding import generator
from search.space import Space
from search.trial import Config, Observation, Rung, ladder

MIXED_SPACE = Space(
    {
        "lr": Float(low=1e-5, high=1e-1, log=True),
        "dropout": Float(low=0.0, high=0.9),
        "width": Int(low=8, high=1024, log=True),
        "depth": Int(low=1, high=8),
        "lookback": Ordered(choices=(60, 120, 240, 390)),
        "kind": Choice(choices=("ssm", "attention", "mlp")),
        "heads": Int(low=1, high=8, when={"kind": "attention"}),
        "state": Ordered(choices=(16, 32, 64), when={"kind": "ssm"}),
    }
)
"""Log-scaled, whole, ordered, named and conditional parameters, as those of a model family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How a synthetic table is made; losses are in units of the spread between random configs.

    Attributes:
        n_folds: Folds of the ladder.
        rungs_per_fold: Reports of a fold.
        n_scored: Scored timestamps of a fold.
        n_blocks: Block means in a report; 0 leaves them out.
        fold_spread: Standard deviation between folds, the same for all configs.
        interaction: Standard deviation of what a fold adds to one config and not to another: how far a fold misleads.
        noise: Standard deviation of a loss at one timestamp, of this config alone.
        memory: Autocorrelation of that noise from timestamp to timestamp, in [0, 1).
        tail: Degrees of freedom of its Student's t innovations, above 2: 3 is heavy, infinity is normal.
        unrest: Standard deviation of the logarithm of a fold's noise level: some folds are wild.
        learning: Loss above its end that a fold shows at no training; falls with the square of the missing share.
    """

    n_folds: int = 10
    rungs_per_fold: int = 1
    n_scored: int = 125
    n_blocks: int = 16
    fold_spread: float = 1.0
    interaction: float = 0.3
    noise: float = 1.5
    memory: float = 0.5
    tail: float = 3.0
    unrest: float = 0.4
    learning: float = 1.0


class SyntheticTable:
    """A table that knows every config of its space: the loss of a pair (config, fold) is drawn from its own seed.

    loss(t) = quality(config) + difficulty(fold) + interaction(config, fold) + market(fold, t) + noise(config, fold, t).
    Quality is zero at `optimum` and above it elsewhere: a quadratic bowl in the unit cube of the numeric parameters,
    random penalties for the named ones, none for what is not active.

    Args:
        seed: Everything random follows from it.
        world: Sizes of the effects.
        space: What varies.
    """

    def __init__(self, seed: int, world: World | None = None, space: Space = MIXED_SPACE) -> None:
        self.world = world or World()
        self._space = space
        self._seed = seed
        rng = generator(seed, "world")
        n, world = len(space.free), self.world
        self.optimum: Config = space.sample(rng)
        self._goal = np.nan_to_num(space.encode(self.optimum), nan=0.5)
        self._steepness = rng.uniform(1.0, 6.0, n)
        self._penalties = [self._draw_penalties(k, rng) for k in range(n)]
        self._scale = 1.0
        sample = [self.true_loss(space.sample(rng)) for _ in range(256)]
        self._scale = float(np.std(sample))
        self._difficulty = world.fold_spread * rng.standard_normal(world.n_folds)
        self._slopes = rng.standard_normal((world.n_folds, n)) * world.interaction
        self._level = np.exp(world.unrest * rng.standard_normal(world.n_folds))

    @property
    def space(self) -> Space:
        return self._space

    @property
    def ladder(self) -> tuple[Rung, ...]:
        return ladder(self.world.n_folds, self.world.rungs_per_fold)

    def true_loss(self, config: Config) -> float:
        """Return the quality of a config: its expected loss over all folds that there might be, but for a constant."""
        place = self._space.encode(config)
        loss = 0.0
        for k in np.flatnonzero(~np.isnan(place)):
            penalties = self._penalties[k]
            if penalties is None:
                loss += self._steepness[k] * (place[k] - self._goal[k]) ** 2
            else:
                loss += penalties[min(int(place[k] * len(penalties)), len(penalties) - 1)]
        return float(loss) / self._scale

    def fold_loss(self, config: Config, fold: int) -> float:
        """Return the expected loss of a config on a fold: what endless scored timestamps would tell."""
        place = np.nan_to_num(self._space.encode(config), nan=0.5)
        shared = float(self._slopes[fold] @ (place - 0.5)) / math.sqrt(len(place) / 12)
        own = self._generator(config, fold).standard_normal() * self.world.interaction
        return self.true_loss(config) + float(self._difficulty[fold]) + (shared + float(own)) / math.sqrt(2)

    def ladder_loss(self, config: Config) -> float:
        """Return the mean of `fold_loss` over the folds of the ladder."""
        return float(np.mean([self.fold_loss(config, fold) for fold in range(self.world.n_folds)]))

    def report(self, config: Config, rung: Rung) -> Observation:
        """Return the report of a rung; a fold takes 0.5 to 1.5 seconds, by config."""
        world = self.world
        series = self.fold_loss(config, rung.fold) + self._noise(config, rung.fold)
        series = series + world.learning * (1 - rung.share) ** 2
        blocks = [part.mean() for part in np.array_split(series, world.n_blocks)] if world.n_blocks else []
        return Observation(
            rung=rung.index,
            fold=rung.fold,
            share=rung.share,
            metrics={"val_loss": float(series.mean())},
            n_scored=world.n_scored,
            seconds=float(self._generator(config, "seconds").uniform(0.5, 1.5)) / world.rungs_per_fold,
            blocks=tuple(map(float, blocks)),
        )

    def _noise(self, config: Config, fold: int) -> NDArray[np.float64]:
        """Return (n_scored,) losses around the mean: the market's, equal for all configs, and the config's own."""
        market = self._autocorrelated(generator(self._seed, "market", fold))
        own = self._autocorrelated(self._generator(config, f"noise {fold}"))
        noise: NDArray[np.float64] = self._level[fold] * (market + own)
        return noise

    def _autocorrelated(self, rng: np.random.Generator) -> NDArray[np.float64]:
        world = self.world
        n_warm = 64
        if np.isinf(world.tail):
            innovations = rng.standard_normal(n_warm + world.n_scored)
        else:
            innovations = rng.standard_t(world.tail, n_warm + world.n_scored) * np.sqrt((world.tail - 2) / world.tail)
        series = lfilter([np.sqrt(1 - world.memory**2)], [1.0, -world.memory], innovations)[n_warm:]
        return world.noise * np.asarray(series, dtype=float)

    def _generator(self, config: Config, purpose: str | int) -> np.random.Generator:
        return generator(self._seed, json.dumps(dict(config), sort_keys=True, default=list), purpose)

    def _draw_penalties(self, k: int, rng: np.random.Generator) -> NDArray[np.float64] | None:
        kind = self._space.parameters[self._space.free[k]]
        if not isinstance(kind, Choice) or isinstance(kind, Fixed):
            return None
        penalties = rng.uniform(0.2, 1.5, len(kind.choices))
        penalties[min(int(self._goal[k] * len(penalties)), len(penalties) - 1)] = 0.0
        return penalties
