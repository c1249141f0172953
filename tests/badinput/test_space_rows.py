"""Rows A01-A35b of the matrix of bad input: what a space file may hold, and what is said where it may not."""

import resource

import pytest
from pydantic import model_validator

from search.errors import SpaceError
from search.parameters import StrictModel
from search.settings import SpaceFile, differences, space_file_model
from search.space_file import load
from search.validity import check_space, infeasible_reason
from trainables.catalogue import config_class
from trainables.data.config import DataConfig, FoldsConfig

MODEL = space_file_model(DataConfig, FoldsConfig, ("condor", "mlp"))


class Family(StrictModel):
    """A config with a rule that spans two fields."""

    lr: float = 1e-3
    optimizer: str = "adam"
    n: int = 1
    d_model: int = 64
    n_heads: int = 4

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads: expected a divisor of d_model = {self.d_model}, found {self.n_heads}")
        return self


@pytest.fixture
def read(tmp_path):
    """Return a function that loads a file with the given text, or the lines of its error."""

    def of(text: str | bytes, *, whole: bool = False, **options) -> SpaceFile | list[str]:
        path = tmp_path / "space.yaml"
        if isinstance(text, str):
            text = text.encode()
        path.write_bytes(text if whole else b"family: mlp\nbudget: {trials: 4}\n" + text)
        try:
            file, document = load(path, model=MODEL, **options)
        except SpaceError as error:
            return [problem.removeprefix(f"{tmp_path}/") for problem in error.problems]
        of.document = document
        return file

    return of


def parameters(*lines: str) -> str:
    return "parameters:\n" + "".join(f"  {line}\n" for line in lines)


def checked(read, text: str, **options) -> tuple[str, str]:
    """Return the problems and the warnings of a file that loads."""
    file = read(text)
    assert isinstance(file, SpaceFile), file
    found = check_space(file.space(), Family, file.search.enqueue, read.document, trials=file.budget.trials, **options)
    return "\n".join(found[0]), "\n".join(found[1])


def test_a01_exponents_without_a_dot_are_numbers(read):
    file = read(parameters("lr: 1e-3", "b: {type: float, low: 1e-4, high: 1E-2, log: true}"))
    assert file.space().reach() == {"lr": (0.001,), "b": (1e-4, 1e-2)}
    assert isinstance(file.space().reach()["lr"][0], float)


def test_a02_a_whole_power_of_ten_is_a_whole_number(read):
    file = read(parameters("n: {type: int, low: 1, high: 1E5}", "m: 1E5"))
    assert file.space().reach()["m"] == (100_000,)
    assert isinstance(file.space().reach()["m"][0], int)


@pytest.mark.parametrize("text", ["0o17", "1,000", "0x1F", "1_000"])
def test_a02_other_spellings_are_text_and_no_number(read, text):
    problems = read(parameters(f"n:\n    type: int\n    low: {text}\n    high: 5000"))
    assert problems == [
        f"space.yaml:6:10 parameters.n.low: expected a whole number, found text '{text}'; "
        "it is not a number: write plain decimal digits, such as 15 or 1e-3"
    ]


def test_a03_leading_zeros_are_refused_everywhere(read):
    problems = read(parameters("n: 017", "z: -0123", "fine: '017'", "zero: 0", "half: 0.5"))
    assert problems == [
        "space.yaml:4:6: expected a number, found 017 with a leading zero; drop it, or quote the text",
        "space.yaml:5:6: expected a number, found -0123 with a leading zero; drop it, or quote the text",
    ]


def test_a04_sexagesimal_is_text(read):
    assert read(parameters("h: 1:30")).space().reach() == {"h": ("1:30",)}
    assert "found text '1:30'; it is not a number" in read(parameters("h: {type: int, low: 1:30, high: 90}"))[0]


def test_a05_words_are_text(read):
    file = read(parameters("opt: {type: choice, choices: [adam, no, on, y, off, yes]}", "b: true", "t: 16:00"))
    assert file.space().reach()["opt"] == ("adam", "no", "on", "y", "off", "yes")
    assert file.space().reach()["b"] == (True,)


def test_a06_a_key_twice_is_refused_with_both_lines(read):
    problems = read(parameters("lr: 1", "n: 2", "lr: 3"))
    assert problems == ["space.yaml:6:3 lr: expected each key once, found it again; first at line 4"]


def test_a07_unknown_keys_offer_the_nearest_name(read):
    problems = read(
        parameters("lr: {type: float, low: 1, hgih: 2, high: 3}") + "serach: {}\nsearch: {optimiser: tpe}\n"
    )
    assert problems == [
        "space.yaml:4:29 parameters.lr.hgih: expected a known key, found unknown 'hgih'; did you mean 'high'?",
        "space.yaml:5:1 serach: expected a known key, found unknown 'serach'; did you mean 'search'?",
        "space.yaml:6:10 search.optimiser: expected a known key, found unknown 'optimiser'; did you mean 'optimizer'?",
    ]


def test_a07_a_parameter_that_the_family_does_not_have_offers_the_nearest_field(read):
    problems, _ = checked(read, parameters("learning: 1", "n_head: 2"))
    assert (
        "space.yaml:5:11 parameters.n_head: expected a field of Family, found 'n_head'; did you mean 'n_heads'?"
        in problems
    )
    assert "parameters.learning: expected a field of Family, found 'learning'; known: lr, optimizer" in problems


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "null\n"])
def test_a08_an_empty_file_is_refused(read, text):
    (problem,) = read(text, whole=True)
    assert "found an empty" in problem


@pytest.mark.parametrize(
    ("text", "found"), [("- 1\n- 2\n", "a list"), ("hello\n", "a single value"), ("3", "a single value")]
)
def test_a09_the_top_level_must_be_a_mapping(read, text, found):
    assert read(text, whole=True) == [f"space.yaml:1:1: expected sections (key: value) at the top level, found {found}"]


def test_a10_two_documents_are_refused(read):
    assert read("---\nfamily: mlp\n") == ["space.yaml:3:1: expected one document, found a second; delete the line ---"]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (b"data:\n\tprice_scale: 1\n", "space.yaml:4:1: expected YAML, found character '\\t'"),
        (b"data: \x00\n", "space.yaml:3:7: expected printable text, found character U+0000"),
        (b"data: {}\nfolds: \xff\n", "space.yaml:4:8: expected UTF-8 text, found byte 0xff"),
        (b"data: [1, 2\n", "space.yaml:4:1: expected YAML, expected ',' or ']'"),
        (b"a: b: c\n", "space.yaml:3:5: expected YAML, mapping values are not allowed here"),
        (b"a: 'open\n", "space.yaml:"),
        ("data: \u2028x\x7f".encode(), "space.yaml:3:9: expected printable text, found character U+007F"),
    ],
)
def test_a11_unreadable_text_is_one_line_with_its_place(read, text, start):
    (problem,) = read(text)
    assert problem.startswith(start)
    assert "\n" not in problem


def test_a12_a_byte_order_mark_and_windows_line_ends_are_fine(read):
    text = b"\xef\xbb\xbffamily: mlp\r\nbudget:\r\n  trials: 4\r\nparameters:\r\n  lr: 1e-3\r\n"
    assert read(text, whole=True).space().reach() == {"lr": (0.001,)}
    assert read.document.position(("parameters", "lr")).endswith("space.yaml:5:7")


def test_a13_tags_are_refused_and_nothing_is_executed(read, tmp_path):
    canary = tmp_path / "canary"
    for tag in ("!!python/object/apply:os.system", "!!python/name:os.system", "!!int", "!own"):
        (problem,) = read(f"data: {tag} ['touch {canary}']\n")
        assert problem.startswith("space.yaml:3:7: expected a plain value, found the tag")
    assert not canary.exists()


def test_a14_an_alias_bomb_is_refused_before_it_expands(read):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 9)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (problem,) = read("\n".join(levels))
    assert "found alias expansion > limit" in problem
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_a14_honest_aliases_are_fine(read):
    file = read(parameters("a: &wide {type: ordered, choices: [1, 2]}", "b: *wide"))
    assert file.space().n_points() == 4


def test_a14_an_alias_inside_its_own_anchor_is_refused(read):
    (problem,) = read("data: &loop {start: *loop}\n")
    assert "expected an anchor that was closed before, found *loop" in problem


@pytest.mark.parametrize("bracket", ["[", "{a: "])
def test_a15_deep_nesting_is_refused_without_recursion(read, bracket):
    (problem,) = read("data: " + bracket * 20_000)
    assert "found nesting > 64" in problem


def test_a15_nesting_through_aliases_counts_too(read):
    levels = "a0: &a0 " + "[" * 40 + "]" * 40 + "\na1: " + "[" * 40 + "*a0" + "]" * 40 + "\n"
    (problem,) = read(levels)
    assert "found nesting > 64" in problem


def test_a16_low_above_high_names_both(read):
    problems = read(parameters("lr: {type: float, low: 0.01, high: 0.0001}", "n: {type: int, low: 5, high: 2}"))
    assert problems == [
        "space.yaml:4:38 parameters.lr.high: low must not be above high (low=0.01, high=0.0001); swap them",
        "space.yaml:5:32 parameters.n.high: low must not be above high (low=5, high=2); swap them",
    ]


def test_a17_low_equal_to_high_is_a_constant_with_a_warning(read):
    text = parameters("lr: {type: float, low: 1, high: 1}", "n: {type: ordered, choices: [3]}", "d_model: 64")
    problems, warnings = checked(read, text)
    assert problems == ""
    assert "space.yaml:4:3 parameters.lr: constant: its only value is 1.0" in warnings
    assert "space.yaml:5:3 parameters.n: constant: its only value is 3" in warnings
    assert "d_model" not in warnings


@pytest.mark.parametrize(
    ("kind", "key", "text"),
    [
        ("float, low: 0, high: 1, log: true", "log", "a log scale needs low above 0 (low=0.0)"),
        ("float, low: -1, high: 1, log: true", "log", "a log scale needs low above 0 (low=-1.0)"),
        ("int, low: 0, high: 9, log: true", "log", "a log scale needs low above 0 (low=0)"),
        ("float, low: 1, high: 9, log: true, step: 1", "step", "log and step exclude each other"),
        ("int, low: 1, high: 9, log: true, step: 2", "step", "log and step exclude each other"),
        ("float, low: 1, high: 9, step: 0", "step", "expected a step above 0, found 0.0"),
        ("float, low: 1, high: 9, step: -1", "step", "expected a step above 0, found -1.0"),
        ("int, low: 1, high: 9, step: 0", "step", "expected a step above 0, found 0"),
        ("float, low: 0, high: 1, step: 1e-300", "step", "expected a step of at least"),
    ],
)
def test_a18_scales_and_steps_that_make_no_sense(read, kind, key, text):
    (problem,) = read(parameters(f"lr: {{type: {kind}}}"))
    assert f"parameters.lr.{key}: {text}" in problem


def test_a19_a_step_that_does_not_divide_the_range_warns_with_the_effective_high(read):
    problems, warnings = checked(read, parameters("lr: {type: float, low: 0, high: 1, step: 0.3}"))
    assert problems == ""
    assert "parameters.lr.step: step 0.3 does not divide the range: the effective high is 0.9, not 1.0" in warnings
    assert "step" not in checked(read, parameters("lr: {type: float, low: 0, high: 1, step: 0.1}"))[1]
    assert "effective high is 7, not 8" in checked(read, parameters("n: {type: int, low: 1, high: 8, step: 3}"))[1]


def test_a20_fractions_as_bounds_of_whole_numbers_are_refused(read):
    problems = read(parameters("n: {type: int, low: 1.5, high: 4.2}"))
    assert problems == [
        "space.yaml:4:23 parameters.n.low: expected a whole number, found 1.5",
        "space.yaml:4:34 parameters.n.high: expected a whole number, found 4.2",
    ]


@pytest.mark.parametrize("bound", [".nan", ".NaN", ".inf", "-.inf", "+.INF", "1e999"])
def test_a21_bounds_must_be_finite(read, bound):
    (problem,) = read(parameters(f"lr: {{type: float, low: 0, high: {bound}}}"))
    assert problem == f"space.yaml:4:35: expected a finite number, found {bound}; write a finite number"


@pytest.mark.parametrize("kind", ["choice", "ordered"])
@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ("[]", "parameters.a.choices: expected at least one choice, found an empty list"),
        ("[1, 2, 1]", "parameters.a.choices: expected distinct choices, found 1 twice"),
        ("[1, 1.0]", "parameters.a.choices: expected distinct choices, found 1.0 twice"),
        (
            "[[1], 2]",
            "parameters.a.choices.0: expected a plain value (number, text, true, false or null), found a list",
        ),
        (
            "[{b: 1}]",
            "parameters.a.choices.0: expected a plain value (number, text, true, false or null), found a mapping",
        ),
        ("[.nan]", "expected a finite number, found .nan"),
        ("5", "parameters.a.choices: expected a list, found 5"),
    ],
)
def test_a22_lists_of_choices(read, kind, choices, text):
    (problem,) = read(parameters(f"a: {{type: {kind}, choices: {choices}}}"))
    assert text in problem


def test_a22_mixed_scalars_are_allowed(read):
    file = read(parameters("a: {type: choice, choices: [1, true, '1', null, 1.5, text]}"))
    assert file.space().reach()["a"] == (1, True, "1", None, 1.5, "text")


def test_a23_a_space_without_a_feasible_point_is_refused(read):
    text = parameters("d_model: {type: ordered, choices: [30, 50]}", "n_heads: {type: ordered, choices: [4, 8]}")
    problems, _ = checked(read, text)
    assert problems.startswith(f"{read.document.position(())[: -len(':1:1')]}:3:1 parameters: expected some feasible")
    assert "n_heads: expected a divisor of d_model" in problems


def test_a23_a_partly_feasible_space_is_fine_and_its_other_points_are_named(read):
    text = parameters("d_model: {type: ordered, choices: [30, 64]}", "n_heads: {type: ordered, choices: [4, 8]}")
    problems, _ = checked(read, text)
    assert problems == ""
    assert infeasible_reason({"d_model": 64, "n_heads": 8}, Family) is None
    reason = infeasible_reason({"d_model": 30, "n_heads": 4}, Family)
    assert reason == "n_heads: expected a divisor of d_model = 30, found 4"


def test_a24_a_condition_on_a_value_that_does_not_exist_is_refused(read):
    problems = read(
        parameters(
            "moe: {type: choice, choices: [none, soft]}",
            "k: {type: int, low: 1, high: 2, when: {moe: topk}}",
            "j: {type: int, low: 1, high: 2, when: {mow: soft}}",
        )
    )
    assert problems == [
        "space.yaml:5:47 parameters.k.when.moe: expected a value of moe (none, soft), found 'topk'; "
        "k would never exist",
        "space.yaml:6:47 parameters.j.when.mow: expected a parameter of the space, found unknown 'mow'; "
        "did you mean 'moe'?",
    ]


def test_a24_a_value_in_a_condition_that_the_family_does_not_know_is_refused(read):
    text = parameters("n: 3", "lr: {type: float, low: 0, high: 1, when: {n: three}}")
    problems, _ = checked(read, text)
    assert "parameters.lr.when.n: expected a value that Family takes" in problems


def test_a24_conditions_in_a_circle_are_refused(read):
    (problem,) = read(
        parameters("a: {type: int, low: 1, high: 2, when: {b: 1}}", "b: {type: int, low: 1, high: 2, when: {a: 1}}")
    )
    assert "expected conditions without a cycle, found a -> b -> a; drop one" in problem


def test_a25_a_space_without_free_parameters_warns(read):
    problems, warnings = checked(read, parameters("lr: 1e-3"))
    assert problems == ""
    assert "parameters: expected something that varies, found 0 free parameters for 4 trials" in warnings


def test_a26_a_grid_must_fit_the_budget_or_say_that_it_need_not(read):
    text = parameters("n: {type: int, low: 1, high: 5}")
    problems, _ = checked(read, text, optimizer="grid")
    assert "search.optimizer: expected a grid within budget.trials (4), found 5 points" in problems
    assert checked(read, text, optimizer="grid", allow_partial=True)[0] == ""
    endless = parameters("lr: {type: float, low: 0, high: 1}")
    assert "expected discrete parameters for a grid, found continuous lr" in checked(read, endless, optimizer="grid")[0]


@pytest.mark.parametrize(
    ("search", "text"),
    [
        (
            "{optimizer: random, n_startup: 0}",
            "space.yaml:5:40 search.n_startup: expected a setting that random has (none here), found n_startup: 0; "
            "drop it, or choose an optimizer that has it (tpe, gp, evolutionary_bayesian)",
        ),
        (
            "{optimizer: tpe, allow_partial: true}",
            "space.yaml:5:41 search.allow_partial: expected a setting that tpe has (n_startup), found allow_partial: "
            "true; drop it, or choose an optimizer that has it (grid)",
        ),
    ],
)
def test_a_setting_that_the_optimizer_does_not_have_is_refused(read, search, text):
    assert read(parameters("lr: 1") + f"search: {search}\n") == [text]


@pytest.mark.parametrize(
    ("trials", "text"),
    [
        ("0", "expected a value of at least 1, found 0"),
        ("-3", "expected a value of at least 1, found -3"),
        ('"10"', "expected a whole number, found text '10'; drop the quotes"),
        ("1e9", "expected a value of at most 1000000, found 1000000000"),
        ("1.5", "expected a whole number, found 1.5"),
        ("true", "expected a whole number, found true"),
    ],
)
def test_a27_the_number_of_trials(read, trials, text):
    assert read(parameters("lr: 1"), overrides=[f"budget.trials={trials}"]) == [f"--set budget.trials: {text}"]


def test_a28_metric_and_direction_are_known_and_agree(read):
    problems = read(parameters("lr: 1") + "objectives:\n  - {metric: val_los, direction: minimise}\n")
    assert "objectives.0.metric: expected one of val_loss, ic, crps, flatness," in problems[0]
    assert problems[0].endswith("found text 'val_los'; did you mean 'val_loss'?")
    assert problems[1].endswith("expected one of minimize, maximize, found text 'minimise'; did you mean 'minimize'?")
    (upside_down,) = read(parameters("lr: 1") + "objectives: [{metric: ic, direction: minimize}]\n")
    assert "expected direction maximize for ic, found minimize" in upside_down


def test_a29_more_than_any_node_has_is_unschedulable(read):
    resources = read(parameters("lr: 1") + "resources: {gpus_per_trial: 8, cpus_per_trial: 2}\n").resources
    assert "unschedulable: need GPU 8, cluster max 0" in resources.unschedulable({"CPU": 4.0})
    assert resources.unschedulable({"CPU": 4.0, "GPU": 8.0}) is None
    assert "need CPU 2, cluster max 1" in resources.unschedulable({"CPU": 1.0, "GPU": 8.0})


@pytest.mark.parametrize(
    ("folds", "text"),
    [
        ("test_months: 0", "folds.test_months: expected a value of at least 1, found 0"),
        ("train_months: -6", "folds.train_months: expected a value of at least 1, found -6"),
        ("max_folds: 0", "folds.max_folds: expected a value of at least 1, found 0"),
        ("max_folds: 1", "folds.max_folds: expected at least 2 folds, found 1"),
        ("validation_months: 6, step_months: 1", "folds: step_months must not be below validation_months"),
    ],
)
def test_a30_folds_that_cannot_be(read, folds, text):
    (problem,) = read(parameters("lr: 1") + f"folds: {{{folds}}}\n")
    assert text in problem


def test_a30_a_rule_that_waits_for_more_folds_than_there_are(read):
    text = parameters("lr: 1") + "folds: {max_folds: 3}\nsearch: {stopping: {rule: asha, min_folds: 4}}\n"
    (problem,) = read(text)
    assert problem.startswith(
        "space.yaml:6:44 search.stopping.min_folds: expected at most folds.max_folds (3), found 4"
    )


def test_a31_a_purge_cannot_be_negative_nor_switched_off_by_a_key_that_does_not_exist(read):
    problems = read(parameters("lr: 1") + "folds: {purge_days: -1, unsafe: true}\n")
    assert "folds.purge_days: expected a value of at least 0.0, found -1" in problems[0]
    assert "folds.unsafe: expected a known key" in problems[1]


def test_a32_another_space_has_another_fingerprint_and_the_same_file_the_same(read):
    text = parameters("lr: {type: float, low: 1e-4, high: 1e-2}", "n: 1")
    first = read(text).space().fingerprint()
    assert read(text.replace("1e-4", "0.0001")).space().fingerprint() == first
    assert read(text.replace("1e-4", "2e-4")).space().fingerprint() != first
    assert read(text.replace("n: 1", "n: 2")).space().fingerprint() != first


def test_a32_what_differs_from_the_run_is_named_and_what_may_differ_is_not(read):
    def content(text: str, **options) -> dict:
        assert isinstance(read(text, **options), SpaceFile)
        return read.document.content

    text = parameters("lr: {type: float, low: 1e-4, high: 1e-2}", "n: 1")
    saved = content(text)
    harmless = ["budget.trials=99", "resources.threads=4", "tracking.enabled=false"]
    assert differences(saved, content(text, overrides=harmless)) == ()
    changes = ["parameters.lr.high=1", "data.price_scale=2", "parameters.k=3"]
    changes.append("objectives=[{metric: ic, direction: maximize}]")
    found = "\n".join(differences(saved, content(text, overrides=changes)))
    assert "data.price_scale: expected 1.0 as in the run, found 2.0; start a new run instead" in found
    assert "parameters.lr.high: expected 0.01 as in the run, found 1.0" in found
    assert "parameters.k: expected null as in the run, found {" in found
    assert "objectives: expected" in found


@pytest.mark.parametrize("name", ["../up", "a/b", "x" * 300, "\U0001f680", "-leading", "", ".hidden", "a b", "a\\n"])
def test_a33_names_that_could_be_paths_are_refused(read, name):
    (problem,) = read(parameters("lr: 1") + f'tracking: {{experiment: "{name}"}}\n')
    assert "tracking.experiment: expected text that matches ^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$" in problem


@pytest.mark.parametrize(
    ("seed", "text"),
    [("-1", "at least 0, found -1"), ("1.5", "a whole number, found 1.5"), ("x", "a whole number, found text 'x'")],
)
def test_a34_a_seed_is_a_whole_number_from_zero(read, seed, text):
    (problem,) = read(parameters("lr: 1") + f"search: {{seed: {seed}}}\n")
    assert text in problem


def test_a34_a_missing_seed_is_left_open_and_zero_is_a_seed(read):
    assert read(parameters("lr: 1")).search.seed is None
    assert read(parameters("lr: 1"), overrides=["search.seed=0"]).search.seed == 0


def test_a35_variables_are_not_replaced(read, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    (problem,) = read("data:\n  bars: ${SECRET}/bars.csv\n" + parameters("lr: 1"))
    assert problem.startswith("space.yaml:4:9: expected the value itself, found a variable ${SECRET}/bars.csv")
    assert "hunter2" not in problem
    quoted = read("data: {source: files, bars: '${SECRET}/bars.csv'}\n" + parameters("lr: 1"))
    assert quoted.data.bars == "${SECRET}/bars.csv"


def test_a35b_enqueued_points_outside_the_space_are_listed(read):
    text = parameters("lr: {type: float, low: 0, high: 1}", "n: {type: int, low: 1, high: 3}", "d_model: 64")
    text += "search:\n  enqueue:\n    - {lr: 0.5}\n    - {lr: 99, n: 2}\n    - {n: 9, heads: 3, d_model: 32}\n"
    problems, _ = checked(read, text)
    assert [line.split("space.yaml")[1] for line in problems.splitlines()] == [
        ":10:12 search.enqueue.1.lr: point 2 lies outside the space: expected between 0.0 and 1.0, found 99",
        ":11:11 search.enqueue.2.n: point 3 lies outside the space: expected between 1 and 3, found 9",
        ":11:21 search.enqueue.2.heads: point 3 lies outside the space: "
        "expected a parameter of the space, found an unknown name",
        ":11:33 search.enqueue.2.d_model: point 3 lies outside the space: expected the fixed value 64, found 32",
    ]


def test_a35b_an_enqueued_point_that_breaks_a_rule_of_the_family_is_refused(read):
    text = parameters("d_model: {type: ordered, choices: [30, 64]}") + "search: {enqueue: [{d_model: 30}]}\n"
    problems, _ = checked(read, text)
    assert "search.enqueue.0: expected a point that the family can train, found point 1: n_heads" in problems


def test_problems_of_all_sections_come_together_in_the_order_of_the_file(read):
    problems = read(
        parameters("lr: {type: float, low: 2, high: 1}", "n: {type: chioce}")
        + "search: {optimizer: tpee}\nbudgit: {}\nfolds: {train_months: 0}\n"
    )
    assert [line.split(":")[1] for line in problems] == ["4", "5", "6", "7", "8"]
    assert all(line.startswith("space.yaml:") for line in problems)


@pytest.mark.requirement("TRAIN-8")
@pytest.mark.parametrize(
    ("precision", "has_gpu", "text"),
    [
        ("fp16", False, "precision: expected resources.gpus_per_trial above 0 for fp16, found 0; use fp32 or bf16"),
        ("tf32", False, "precision: expected resources.gpus_per_trial above 0 for tf32, found 0; use fp32 or bf16"),
        ("fp16", True, "zero_stage: expected 1, 2 or 3 with precision fp16 on deepspeed, found 0; set zero_stage: 1"),
        ("bf16", False, ""),
        ("tf32", True, ""),
    ],
)
def test_a_number_format_that_cannot_run_is_refused_before_the_start(read, precision, has_gpu, text):
    file = read(parameters("lr: {type: float, low: 1e-4, high: 1e-2}", f"precision: {precision}"))
    machine = {"has_gpu": has_gpu, "engine": "deepspeed"}
    problems, _ = check_space(file.space(), config_class("mlp"), (), read.document, machine=machine)
    assert [text in problem for problem in problems] == [True] * bool(text)


def test_of_several_number_formats_those_that_can_run_are_tried(read):
    file = read(parameters("precision: {type: choice, choices: [fp32, bf16, fp16]}", "zero_stage: 1"))
    machine = {"has_gpu": False, "engine": "deepspeed"}
    assert check_space(file.space(), config_class("mlp"), (), read.document, machine=machine) == ((), ())
    assert infeasible_reason({"precision": "fp32"}, config_class("mlp"), machine) is None
    assert "for fp16, found 0" in infeasible_reason({"precision": "fp16"}, config_class("mlp"), machine)


def test_the_number_of_workers_of_a_trial_must_be_that_of_the_run():
    saved, given = {"resources": {"workers_per_trial": 1}}, {"resources": {"workers_per_trial": 2, "threads": 4}}
    (line,) = differences(saved, given)
    assert line.startswith("resources.workers_per_trial: expected 1 as in the run, found 2")
