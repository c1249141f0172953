"""The layout of trials and folds against statsmodels, and where trials were chosen by luck."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from search import fold_effects
from search.fold_effects import RATIOS, fit

N_FOLDS = 6


def drawn(seed: int, n_trials: int = 60, noise: float | np.ndarray = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return losses, (n_trials, n_folds), and the effects of the folds."""
    rng = np.random.default_rng(seed)
    effects = 2 * rng.standard_normal(N_FOLDS)
    worths = rng.standard_normal((n_trials, 1))
    return worths + effects + noise * rng.standard_normal((n_trials, N_FOLDS)), effects


def raced(losses: np.ndarray) -> np.ndarray:
    """Leave the losses of those that go on: after each fold the better half, by their mean over the folds so far."""
    seen = losses.copy()
    for n in range(1, N_FOLDS - 1):
        alive = ~np.isnan(seen[:, n])
        means = seen[:, :n].mean(axis=1)
        seen[alive & (means > np.median(means[alive])), n:] = np.nan
    return seen


def test_effects_and_variances_are_those_of_a_mixed_model() -> None:
    """Restricted likelihood of statsmodels, one variance of chance for all folds, unbalanced table."""
    losses = drawn(0)[0]
    losses[20:, 3:] = np.nan
    rows, folds = np.nonzero(~np.isnan(losses))
    table = pd.DataFrame({"loss": losses[rows, folds], "trial": rows})
    model = sm.MixedLM(table["loss"], pd.get_dummies(folds).astype(float), groups=table["trial"]).fit(reml=True)
    weights = (~np.isnan(losses)).astype(float)
    fits = [fold_effects._at(ratio, np.nan_to_num(losses), weights) for ratio in np.geomspace(1, 20, 200)]
    _, effects, chance, ratio = max(fits, key=lambda one: one[0])
    assert effects == pytest.approx(model.fe_params.to_numpy(), abs=1e-3)
    assert chance == pytest.approx(model.scale, rel=0.01)
    assert ratio * chance == pytest.approx(float(model.cov_re.iloc[0, 0]), rel=0.05)
    assert RATIOS[0] < ratio < RATIOS[-1]


def test_folds_of_the_lucky_are_not_taken_for_hard() -> None:
    """Averages over those that are left make later folds easier, for the better half has them; the layout does not."""
    fitted, naive = [], []
    for seed in range(40):
        losses, effects = drawn(seed, noise=1.0)
        seen = raced(losses)
        found = fit(seen).effects
        fitted.append((found - found[0])[-1] - (effects - effects[0])[-1])
        both = ~np.isnan(seen[:, -1])
        naive.append((seen[both, -1] - seen[both, 0]).mean() - (effects[-1] - effects[0]))
    assert abs(np.mean(fitted)) < 2.5 * np.std(fitted) / np.sqrt(40)
    assert np.mean(naive) > 5 * np.std(naive) / np.sqrt(40)


def test_a_wild_fold_says_less() -> None:
    noise = np.array([0.2, 0.2, 3.0, 0.2, 0.2, 0.2])
    losses, _ = drawn(1, n_trials=80, noise=noise)
    layout = fit(losses)
    assert np.sqrt(layout.chance) == pytest.approx(noise, rel=0.35)
    worths, variances = layout.worth(losses)
    assert variances[0] == pytest.approx(1 / np.sum(1 / noise**2), rel=0.3)
    calm = losses[:, noise < 1].mean(axis=1)  # what is known without the wild fold
    assert np.std(worths - calm) < 0.1 * np.std(losses.mean(axis=1) - calm)


def test_too_few_folds_say_nothing_about_chance() -> None:
    layout = fit(np.array([[1.0, np.nan], [2.0, 3.0]]))
    assert not layout.is_known
    assert layout.effects == pytest.approx([1.5, 3.0])
    assert np.isnan(layout.worth(np.array([[1.0, np.nan]]))[1]).all()


def test_a_fold_that_nobody_saw_has_no_effect_and_an_ordinary_variance() -> None:
    losses = drawn(2)[0]
    losses[:, 4:] = np.nan
    layout = fit(losses)
    assert np.isnan(layout.effects[4:]).all()
    assert layout.chance[4] == pytest.approx(np.exp(np.log(layout.chance[:4]).mean()))


def test_effects_alone_are_those_of_a_whole_fit() -> None:
    losses = raced(drawn(3)[0])
    layout = fit(losses)
    again = fold_effects.refit(losses, layout)
    assert again.effects == pytest.approx(layout.effects, abs=0.02)
    assert (again.chance == layout.chance).all()
