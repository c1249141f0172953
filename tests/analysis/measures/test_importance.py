import warnings

import numpy as np
import pytest

from analysis.measures import importance

NUMBERS = {"lr": (1e-5, 1e-1, True), "x": (0.0, 1.0, False), "n": (1, 6, False)}


def search(seed, n=200):
    generator = np.random.default_rng(seed)
    points = [
        {
            "lr": float(10 ** generator.uniform(-5, -1)),
            "x": float(generator.uniform()),
            "n": int(generator.integers(1, 7)),
        }
        for _ in range(n)
    ]
    losses = [(np.log10(p["lr"]) + 3) ** 2 + 0.5 * p["x"] + 0.1 * generator.standard_normal() for p in points]
    return points, losses


def axes_of(points):
    return {
        name: importance.axis([p[name] for p in points], low=low, high=high, is_log=log)
        for name, (low, high, log) in NUMBERS.items()
    }


def of_optuna(points, losses):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kinds = {
        "lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
        "x": optuna.distributions.FloatDistribution(0, 1),
        "n": optuna.distributions.IntDistribution(1, 6),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study()
        for point, loss in zip(points, losses, strict=True):
            study.add_trial(optuna.trial.create_trial(params=point, distributions=kinds, value=loss))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_those_of_optuna(seed):
    points, losses = search(seed)
    found, expected = importance.ped_anova(axes_of(points), losses), of_optuna(points, losses)
    assert list(found)[:2] == list(expected)[:2] == ["lr", "x"]
    for name in NUMBERS:
        assert found[name].share == pytest.approx(expected[name], abs=0.05)


def test_a_category_that_decides_is_above_noise_and_one_that_does_not_is_not():
    generator = np.random.default_rng(0)
    kinds, idle = generator.choice(["a", "b", "c"], 300), generator.choice(["u", "v"], 300)
    losses = (kinds == "a") * 1.0 + 0.3 * generator.standard_normal(300)
    axes = {"kind": importance.axis(kinds.tolist()), "idle": importance.axis(idle.tolist())}
    found = importance.ped_anova(axes, losses)
    assert found["kind"].is_above_noise
    assert not found["idle"].is_above_noise
    assert sum(v.share for v in found.values()) == pytest.approx(1.0)


def test_noise_is_rarely_above_noise():
    above = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        axes = {f"p{k}": importance.axis(generator.uniform(size=80).tolist(), low=0, high=1) for k in range(5)}
        above += sum(
            v.is_above_noise for v in importance.ped_anova(axes, generator.uniform(size=80), seed=seed).values()
        )
    assert above <= 12  # 5 % of 100 is 5, standard deviation 2.2


def test_inactive_trials_are_left_out_of_a_parameter():
    points, losses = search(0)
    values = [p["x"] if k % 2 else None for k, p in enumerate(points)]
    found = importance.ped_anova({"x": importance.axis(values, low=0, high=1), **axes_of(points)}, losses)
    assert found["x"].share_active == 1.0  # the later entry of the same name
    found = importance.ped_anova({"half": importance.axis(values, low=0, high=1)}, losses)
    assert found["half"].share_active == 0.5


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3], ((0.0, 0.5, 1.0), 0, False)),
        ([0.001, 0.1, None], ((0.0, 1.0, np.nan), 0, True)),
        ([True, False, None], ((1.0, 0.0, np.nan), 2, False)),
        (["b", 1, "a"], ((2.0, 0.0, 1.0), 3, False)),
        ([5.0, 5.0, 5.0], ((0.5, 0.5, 0.5), 0, False)),
    ],
)
def test_axes_code_what_people_search_over(values, kind):
    found = importance.axis(values)
    assert np.allclose(found.values, kind[0], equal_nan=True)
    assert (found.n_categories, found.is_log) == kind[1:]


def test_little_to_go_by_gives_nothing():
    assert importance.ped_anova({}, [1.0] * 10) == {}
    assert importance.ped_anova({"x": importance.axis([1.0, 2.0])}, [1.0, 2.0]) == {}
    constant = importance.ped_anova({"x": importance.axis([1.0] * 9)}, np.arange(9.0))
    assert constant["x"].share == 0.0
    with pytest.raises(ValueError, match="finite losses"):
        importance.ped_anova({"x": importance.axis([1.0, 2.0])}, [1.0, np.nan])
