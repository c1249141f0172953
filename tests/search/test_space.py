"""The space: sampling, conditions, the unit cube, and what follows from them."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from search.errors import SpaceError
from search.parameters import KINDS
from search.space import Choice, Fixed, Float, Int, Ordered, Space

MIXED = {
    "moe_k": Int(low=1, high=2, when={"moe": "topk"}),
    "moe": Choice(choices=("none", "soft", "topk"), default="soft"),
    "n_experts": Ordered(choices=(2, 3, 4, 8), default=3, when={"moe": ("soft", "topk")}),
    "lr": Float(low=1e-5, high=1e-2, log=True, default=1e-3),
    "clip": Float(low=0.0, high=1.0, step=0.1),
    "depth": Int(low=1, high=64, log=True),
    "shift": Float(low=-3.0, high=5.0),
    "seeded": True,
    "windows": (5, 10, None),
}


def mixed() -> Space:
    return Space(MIXED)


def test_parents_come_before_children_and_bare_values_are_fixed():
    space = mixed()
    names = list(space.parameters)
    assert names.index("moe") < names.index("moe_k")
    assert isinstance(space.parameters["seeded"], Fixed)
    assert set(space.free) == {"moe", "moe_k", "n_experts", "lr", "clip", "depth", "shift"}


@pytest.mark.requirement("SEARCH-10")
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_samples_lie_in_the_space_and_carry_no_dead_parameter(seed):
    space = mixed()
    config = space.sample(np.random.default_rng(seed))
    assert space.problems(config) == ()
    assert ("moe_k" in config) == (config["moe"] == "topk")
    assert ("n_experts" in config) == (config["moe"] != "none")
    assert json.loads(json.dumps(config)) == config
    assert config["windows"] == [5, 10, None]


def test_equal_generators_give_equal_samples():
    first, second = (np.random.default_rng(3) for _ in range(2))
    assert [mixed().sample(first) for _ in range(20)] == [mixed().sample(second) for _ in range(20)]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_encode_and_decode_are_inverse(seed):
    space = mixed()
    config = space.sample(np.random.default_rng(seed))
    place = space.encode(config)
    assert place.shape == (len(space.free),)
    assert place.dtype == np.float64
    active = ~np.isnan(place)
    assert [n for n, a in zip(space.free, active, strict=True) if a] == [n for n in space.free if n in config]
    assert np.all((place[active] >= 0) & (place[active] <= 1))
    back = space.decode(place)
    assert back.keys() == config.keys()
    for name, value in config.items():
        if name in ("lr", "shift"):
            assert back[name] == pytest.approx(value, rel=1e-12, abs=1e-12)
        else:
            assert back[name] == value
            assert type(back[name]) is type(value)


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(-(2**40), 2**40), width=st.integers(0, 2**30), step=st.integers(1, 1000), unit=st.floats(0.0, 1.0)
)
def test_whole_numbers_survive_the_unit_interval_exactly(low, width, step, unit):
    kind = Int(low=low, high=min(low + width, 2**40), step=step)
    value = kind.from_unit(unit)
    assert kind.objection(value) is None
    assert kind.from_unit(kind.to_unit(value)) == value


@settings(max_examples=60, deadline=None)
@given(low=st.integers(1, 1000), width=st.integers(0, 10**6), unit=st.floats(0.0, 1.0))
def test_logarithmic_whole_numbers_survive_too(low, width, unit):
    kind = Int(low=low, high=low + width, log=True)
    value = kind.from_unit(unit)
    assert kind.from_unit(kind.to_unit(value)) == value


def test_listed_values_sit_at_the_centre_of_equal_cells():
    kind = Ordered(choices=(24, 32, 52))
    assert [kind.to_unit(v) for v in (24, 32, 52)] == pytest.approx([1 / 6, 3 / 6, 5 / 6])
    assert [kind.from_unit(u) for u in (0.0, 0.33, 0.34, 0.99, 1.0)] == [24, 24, 32, 52, 52]


def test_true_and_one_are_different_choices():
    kind = Choice(choices=(1, True, "1"))
    assert [kind.value_at(kind.rank(v)) for v in (1, True, "1")] == [1, True, "1"]
    assert Choice(choices=(0, 1)).objection(True) == "one of 0, 1"


def test_samples_are_uniform_and_log_uniform():
    space = Space({"u": Float(low=-1, high=3), "l": Float(low=1e-4, high=1e-1, log=True), "n": Int(low=3, high=7)})
    rng = np.random.default_rng(0)
    draws = [space.sample(rng) for _ in range(2000)]
    assert stats.kstest([d["u"] for d in draws], stats.uniform(-1, 4).cdf).pvalue > 1e-3
    assert stats.kstest([d["l"] for d in draws], stats.loguniform(1e-4, 1e-1).cdf).pvalue > 1e-3
    counts = np.bincount([d["n"] for d in draws], minlength=8)[3:]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_stepped_floats_are_exact_decimals_that_stop_below_high():
    kind = Float(low=0, high=1, step=0.3)
    assert [kind.value_at(r) for r in range(kind.size)] == [0.0, 0.3, 0.6, 0.9]
    assert kind.objection(0.6) is None
    assert kind.objection(0.5) == "0.0 plus a multiple of 0.3"
    assert kind.objection(1.0) == "0.0 plus a multiple of 0.3"
    assert Float(low=0, high=1, step=0.1).size == 11


@pytest.mark.requirement("SEARCH-12")
def test_complete_fills_defaults_of_active_parameters_only():
    config = mixed().complete({"moe": "none"})
    assert "n_experts" not in config
    assert config["lr"] == 1e-3
    assert config["shift"] == 1.0
    assert config["clip"] == 0.5
    assert mixed().complete({"moe": "topk"})["moe_k"] in (1, 2)


def test_without_a_default_a_choice_takes_its_first_value():
    assert Choice(choices=("b", "a")).initial == "b"
    assert Ordered(choices=(1, 2, 3)).initial == 2
    assert Choice(choices=(True, False), default=False).initial is False


def test_a_whole_number_given_to_a_float_becomes_one():
    value = mixed().complete({"shift": 2})["shift"]
    assert value == 2.0
    assert isinstance(value, float)


def test_complete_refuses_inactive_unknown_and_outside_values_together():
    with pytest.raises(SpaceError) as caught:
        mixed().complete({"moe": "soft", "moe_k": 1, "lrr": 1.0, "depth": 65, "clip": 0.05, "seeded": False})
    text = str(caught.value)
    assert "lrr: expected a parameter of the space, found an unknown name; did you mean 'lr'?" in text
    assert "moe_k: expected no value, found 1; it exists only when moe = topk" in text
    assert "depth: expected between 1 and 64, found 65" in text
    assert "clip: expected 0.0 plus a multiple of 0.1, found 0.05" in text
    assert "seeded: expected the fixed value true, found false" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x", None, True])
def test_a_float_takes_nothing_but_finite_numbers(value):
    assert Float(low=0, high=2).objection(value) == "a number"


def test_problems_names_a_missing_value():
    config = mixed().complete({})
    del config["lr"]
    assert mixed().problems(config) == ("lr: expected a value, found none",)


def test_decode_refuses_a_wrong_length_and_nan_of_an_active_parameter():
    space = mixed()
    with pytest.raises(ValueError, match=r"expected a vector of shape \(7,\), found \(3,\)"):
        space.decode(np.zeros(3))
    place = np.full(7, 0.5)
    place[space.free.index("lr")] = np.nan
    with pytest.raises(ValueError, match="lr, which is active"):
        space.decode(place)


def test_decode_moves_places_outside_the_cube_to_its_faces():
    space = mixed()
    assert space.decode(np.full(7, -9.0))["lr"] == 1e-5
    assert space.decode(np.full(7, 1e300))["depth"] == 64


def test_conditions_name_what_is_wrong_all_at_once():
    with pytest.raises(SpaceError) as caught:
        Space(
            {
                "a": Choice(choices=(1, 2), when={"b": 1}),
                "b": Choice(choices=(1, 2), when={"a": 1}),
                "c": Choice(choices=(1, 2), when={"aa": 1}),
                "d": Float(low=0, high=1),
                "e": Choice(choices=(1, 2), when={"d": 0.5}),
                "f": Choice(choices=(1, 2), when={"a": 3}),
                "g": Choice(choices=(1, 2), when={"g": 1}),
            }
        )
    text = str(caught.value)
    assert "parameters.c.when.aa: expected a parameter of the space, found unknown 'aa'" in text
    assert "parameters.e.when.d: expected a parent of type int, ordered, choice or fixed" in text
    assert "parameters.f.when.a: expected a value of a (1, 2), found 3; f would never exist" in text
    assert "expected conditions without a cycle, found a -> b -> a" in text


def test_a_cycle_through_itself_is_a_cycle():
    with pytest.raises(SpaceError, match="g -> g"):
        Space({"g": Choice(choices=(1, 2), when={"g": 1})})


def test_something_fixed_switches_its_children_off_down_the_line():
    space = Space(
        {
            "trajectory": False,
            "diffusion": Choice(choices=(False, True), when={"trajectory": True}),
            "steps": Ordered(choices=(50, 100), when={"diffusion": True}),
            "lookback": Ordered(choices=(16, 32)),
        }
    )
    assert space.free == ("lookback",)
    assert space.reach() == {"trajectory": (False,), "lookback": (16, 32)}
    assert space.n_points() == 2
    assert [row.when for row in space.describe()][1:3] == ["never: trajectory = true", "never: diffusion = true"]


def test_reach_gives_every_discrete_value_and_both_ends_of_the_rest():
    reach = mixed().reach()
    assert reach["n_experts"] == (2, 3, 4, 8)
    assert reach["lr"] == (1e-5, 1e-2)
    assert reach["clip"] == tuple(k / 10 for k in range(11))
    assert reach["windows"] == ([5, 10, None],)
    assert Space({"n": Int(low=0, high=10**9)}).reach()["n"] == (0, 10**9)


def test_points_are_counted_and_listed_by_brute_force_alike():
    parameters = {
        "a": Choice(choices=("x", "y", "z")),
        "b": Int(low=1, high=4, when={"a": ("x", "y")}),
        "c": Ordered(choices=(1, 2), when={"b": (2, 3), "a": "x"}),
        "d": Float(low=0, high=1, step=0.5),
        "e": 5,
    }
    space = Space(parameters)
    expected = set()
    for a, b, c, d in itertools.product("xyz", range(1, 5), (1, 2), (0.0, 0.5, 1.0)):
        config = {"a": a, "d": d, "e": 5}
        if a in "xy":
            config["b"] = b
        if a == "x" and b in (2, 3):
            config["c"] = c
        expected.add(json.dumps(config, sort_keys=True))
    listed = [json.dumps(point, sort_keys=True) for point in space.points()]
    assert set(listed) == expected
    assert len(listed) == len(expected) == space.n_points()


def test_a_continuous_parameter_makes_the_points_endless_unless_it_is_never_active():
    assert mixed().n_points() is None
    with pytest.raises(ValueError, match="continuous lr, shift"):
        mixed().points()
    quiet = Space({"off": 0, "lr": Float(low=0, high=1, when={"off": 1}), "k": Int(low=1, high=3)})
    assert quiet.n_points() == len(list(quiet.points())) == 3


def test_the_fingerprint_changes_with_anything_that_changes_a_sample():
    base = mixed().fingerprint()
    assert base == mixed().fingerprint()
    assert len(base) == 64
    changed = [
        {**MIXED, "lr": Float(low=1e-5, high=1e-2, log=False, default=1e-3)},
        {**MIXED, "seeded": 1},
        {**MIXED, "moe": Choice(choices=("soft", "none", "topk"), default="soft")},
        {**MIXED, "depth": Int(low=1, high=64)},
        dict(reversed(MIXED.items())),
    ]
    assert len({base, *(Space(c).fingerprint() for c in changed)}) == 1 + len(changed)


def test_the_empty_space_has_one_point():
    space = Space({"a": 1})
    assert space.free == ()
    assert space.n_points() == 1
    assert space.decode(space.encode(space.sample(np.random.default_rng(0)))) == {"a": 1}


def test_inputs_are_not_changed():
    partial = {"moe": "topk"}
    mixed().complete(partial)
    assert partial == {"moe": "topk"}
    config = mixed().complete({})
    config["windows"].append(1)
    assert mixed().complete({})["windows"] == [5, 10, None]


def test_the_table_says_kind_range_default_and_condition():
    row = {r.name: r for r in mixed().describe()}
    assert row["lr"] == ("lr", "float", "1e-05 .. 0.01 log", "0.001", "")
    assert row["n_experts"].when == "moe = soft or topk"
    assert row["seeded"][1:] == ("fixed", "= true", "", "")


def test_kinds_are_named_as_in_the_file():
    assert {name: kind.model_fields["type"].default for name, kind in KINDS.items()} == {n: n for n in KINDS}
