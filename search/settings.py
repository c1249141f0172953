"""The sections of a space file that are the search's own, and the model of the whole file.

`search` knows no family and no data code: whoever calls hands in the classes of `data` and `folds` and the names of the
families.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model, model_validator

from search import objective
from search.parameters import Choice, Kind, Ordered, Parameter, StrictModel, Value, identity, shown
from search.space import Problem, Space, condition_problems

MOST_TRIALS = 1_000_000

Metric = Literal[
    "val_loss",
    "ic",
    "crps",
    "flatness",
    "rank_ic",
    "regime_accuracy",
    "accuracy",
    "train_loss",
    "loss_gain",
    "n_parameters",
    "memory_bytes",
    "latency_ms",
]
OURS = "evolutionary_bayesian"
HIGHER_IS_BETTER: frozenset[Metric] = frozenset({"ic", "rank_ic", "regime_accuracy", "accuracy", "loss_gain"})


class Asha(StrictModel):
    """Asynchronous successive halving over folds (Li et al., 2020; SEARCH-8)."""

    rule: Literal["asha"] = "asha"
    eta: int = Field(default=3, ge=2)
    """One in `eta` trials goes on at each level."""
    min_folds: int = Field(default=1, ge=1)
    """No trial is stopped before so many folds."""


class Hyperband(StrictModel):
    """Brackets of successive halving over folds that begin to stop at different depths (Li et al., 2018)."""

    rule: Literal["hyperband"] = "hyperband"
    eta: int = Field(default=3, ge=2)
    """One in `eta` trials goes on at each level."""
    min_folds: int = Field(default=1, ge=1)
    """No trial is stopped before so many folds."""


class FoldRacing(StrictModel):
    """Paired tests against the leaders on equal folds; alpha bounds the chance that what matters most is dropped."""

    rule: Literal["fold_racing"] = "fold_racing"
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Largest chance that the search drops its truly best trial, or, with a margin, one better by the margin."""
    min_folds: int = Field(default=1, ge=1)
    """No trial is stopped before so many folds."""
    final_folds: int = Field(default=1, ge=1)
    """Last folds, in which no trial is stopped: finalists are judged on folds that no decision has looked at."""
    leaders: int = Field(default=4, ge=1)
    """Trials whose mean a trial is compared with."""
    margin: float = Field(default=0.0, ge=0)
    """Standard errors of a whole ladder by which a trial must be better than the leaders to be worth keeping."""
    spending: float = Field(default=1.0, gt=0)
    """Power of the share of alpha that is spent by each look: 1 evenly, 3 keeps most for late looks."""
    best_first: bool = True
    """Set trials aside after each fold for what promises more; no: every trial goes on until a test drops it."""
    least_gain: float = Field(default=0.0, ge=0)
    """Standard errors of a complete trial's loss: once all trials are proposed, those that were set aside go on while
    one of them is expected to improve on the best by so much. 0: all are finished or dropped, as alpha promises."""


class Predicted(StrictModel):
    """A surrogate reads the rungs of all trials and says how a trial will end; the unpromising are stopped."""

    rule: Literal["predicted"] = "predicted"
    chance: float = Field(default=0.2, gt=0, lt=1)
    """A trial goes on while its chance of ending better than the best complete one is at least this."""
    n_points: int = Field(default=200, ge=20)
    """Most rungs that the surrogate holds."""


class Dominated(StrictModel):
    """For several objectives: successive halving over folds by how many trials dominate a trial there."""

    rule: Literal["dominated"] = "dominated"
    eta: int = Field(default=3, ge=2)
    """About one in `eta` trials goes on at each level; what nothing dominates always does."""
    min_folds: int = Field(default=1, ge=1)
    """No trial is stopped before so many folds."""


class NoStopping(StrictModel):
    """Every trial visits every rung."""

    rule: Literal["none"] = "none"


class UnlockSection(StrictModel):
    """Values that wait until other trials have earned them (SEARCH-13)."""

    parameter: str
    """A choice or ordered parameter that no other depends on."""
    locked: tuple[Value, ...] = Field(min_length=1)
    """Its values that wait."""
    instead: Value
    """The value that is tried in place of them until then."""
    metric: Literal["directional_accuracy", "accuracy"] = "directional_accuracy"
    """Accuracy of a complete trial, a mean over its folds, that unlocks them ..."""
    above: float = 0.52
    """... where it is above this ..."""
    baseline: Literal["majority_rate"] = "majority_rate"
    """... and above this measure of the same trial ..."""
    margin: float = 0.01
    """... by this."""
    standard_errors: float = Field(default=0.0, ge=0)
    """Standard errors over folds by which both bars must be cleared; 0 as documented, which the luckiest of many
    trials may pass by chance."""


SETTING_OF: Mapping[str, tuple[str, ...]] = {
    "n_startup": ("tpe", "gp", "evolutionary_bayesian"),
    "allow_partial": ("grid",),
}
"""Keys of `search` that some optimizers read and the others do not have."""


class SearchSection(StrictModel):
    """How configs are proposed and trials are stopped."""

    optimizer: Literal[
        "random", "tpe", "gp", "cma_es", "nsga2", "nsga3", "qmc", "grid", "evolutionary_bayesian", "population_based"
    ] = "tpe"
    """Who proposes configs (SEARCH-4)."""
    n_startup: int | None = Field(default=None, ge=0)
    """Trials before a model-based optimizer trusts its model; none: the optimizer's own number."""
    population: int = Field(default=16, ge=1)
    """Trials of a generation."""
    synchronous: bool = False
    """A generation begins when the one before is over: proposals then do not depend on workers or their order."""
    generations: int | None = Field(default=None, ge=1)
    """Number of generations; none: as many as the budget gives."""
    enqueue: tuple[dict[str, Value], ...] = ()
    """Configs tried first, as generation 0; parameters that are not given take their default."""
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    """Seed of everything random; none: drawn at the start and written to the run's space.yaml."""
    stopping: Annotated[
        Asha | Hyperband | FoldRacing | Predicted | Dominated | NoStopping, Field(discriminator="rule")
    ] = Asha()
    """When a trial is ended early."""
    allow_partial: bool = False
    """Let a grid be larger than the budget; the rest of it is then not tried."""
    unlock: UnlockSection | None = None
    """Values of a parameter that wait until others have earned them; none: everything may be tried at once."""
    reuse: bool = True
    """Take over results of folds that were trained before with equal config, data, code and seed."""
    reuse_dir: str | None = None
    """Where such results are kept; none: the folder `results` beside the run folder."""


class FidelitySection(StrictModel):
    """How finely a trial reports, and how much of the real thing it trains."""

    rungs_per_fold: int = Field(default=1, ge=1)
    """Reports per fold, each after an equal share of its epochs."""
    scale: Literal["tiny", "small", "full"] = "full"
    """Share of width, depth and training rows: a quarter, a half, or all (SEARCH-16). Scores of different scales are
    not compared; what is scored is the same."""
    width_frac: float | None = Field(default=None, gt=0, le=1)
    """Share of the model's width instead of the scale's."""
    depth_frac: float | None = Field(default=None, gt=0, le=1)
    """Share of the model's layers instead of the scale's."""
    data_frac: float | None = Field(default=None, gt=0, le=1)
    """Share of a fold's training rows, the last ones, instead of the scale's."""


class Objective(StrictModel):
    """A measure that the search improves."""

    metric: Metric
    """Name of the measure, a mean over folds."""
    direction: Literal["minimize", "maximize"]
    """Which way is better."""

    @model_validator(mode="after")
    def _right_way_up(self) -> Objective:
        natural = "maximize" if self.metric in HIGHER_IS_BETTER else "minimize"
        if self.direction != natural:
            raise ValueError(f"expected direction {natural} for {self.metric}, found {self.direction}; turn it")
        return self


class Constraint(StrictModel):
    """A bound on a measure: what breaks it is infeasible, which is not the same as bad."""

    metric: Metric
    """Name of the measure. `n_parameters` and `memory_bytes` are known, and judged, before a trial starts."""
    max: float | None = None
    """Largest allowed value."""
    min: float | None = None
    """Smallest allowed value."""

    @model_validator(mode="after")
    def _one_bound(self) -> Constraint:
        if (self.max is None) == (self.min is None):
            raise ValueError(f"expected either max or min for {self.metric}; give one of them")
        return self

    @property
    def bound(self) -> Literal["min", "max"]:
        """Which of the two is given."""
        return "min" if self.max is None else "max"

    @property
    def limit(self) -> float:
        """The one that is given."""
        limit = self.min if self.max is None else self.max
        assert limit is not None
        return limit


class BudgetSection(StrictModel):
    """When the search is over."""

    trials: int = Field(ge=1, le=MOST_TRIALS)
    """Trials asked for, stopped and failed ones included."""
    wall_minutes: float | None = Field(default=None, gt=0)
    """No trial is started after so many minutes; none: no limit."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """No trial is started after trials have reported so many GPU-hours; none: no limit."""
    patience: int | None = Field(default=None, ge=1)
    """No trial is started after so many trials in a row without progress beyond the noise; none: no limit."""
    least_improvement: float | None = Field(default=None, gt=0)
    """No trial is started where 30 more like the last 30 promise less, in standard errors; none: no limit."""
    give_up_after: int | None = Field(default=10, ge=1)
    """Where all of so many first trials failed, the search stops; none: never."""


class ResourcesSection(StrictModel):
    """What a trial gets of the machine or the cluster (CLUSTER-2)."""

    cpus_per_trial: float = Field(default=1.0, gt=0)
    """CPU share that Ray sets aside for a trial, all its workers together."""
    gpus_per_trial: float = Field(default=0.0, ge=0)
    """GPU share that Ray sets aside for a trial, all its workers together."""
    workers_per_trial: int = Field(default=1, ge=1, le=1024)
    """Processes that train a trial together under Ray Train. The effective batch is that many times as large (TRAIN-4).
    One worker is the actor itself and starts in a tenth of the time."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at a time; none: as many as fit."""
    max_failures: int = Field(default=3, ge=0)
    """Restarts of a trial whose worker died (CLUSTER-4)."""
    hang_minutes: float | None = Field(default=30.0, gt=0)
    """A trial that has not finished an optimiser step for so long hangs: its worker is killed and it has failed.
    Building the data set and scoring a fold must take less. None: wait for ever."""
    ray_address: str = Field(default="local", min_length=1)
    """`local`: a Ray of this process's own; `auto` or an address: a running cluster."""
    engine: Literal["deepspeed", "plain"] = "deepspeed"
    """Training engine."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of a trial's tensor operations."""

    def unschedulable(self, largest_node: Mapping[str, float]) -> str | None:
        """Say which resource no node can give a trial, else None.

        Args:
            largest_node: Resource name of Ray (`CPU`, `GPU`) -> the most that one node has of it.
        """
        n_workers = self.workers_per_trial
        wanted = {"CPU": self.cpus_per_trial / n_workers, "GPU": self.gpus_per_trial / n_workers}
        for name, need in wanted.items():
            most = largest_node.get(name, 0.0)
            if need > most:
                key = f"resources.{name.lower()}s_per_trial"
                return f"{key}: unschedulable: need {name} {need:g}, cluster max {most:g}; lower it or add a node"
        return None


class TrackingSection(StrictModel):
    """The mirror of the search in MLflow."""

    enabled: bool = True
    """Send runs to MLflow."""
    uri: str | None = None
    """Tracking store; none: `mlflow.db` in the run folder."""
    experiment: str = Field(default="condor-search", pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$")
    """Name of the experiment: letters, digits, dot, dash and underscore, 80 at most."""


class SpaceFile(StrictModel):
    """A whole space file; `space_file_model` narrows `data`, `folds` and `family`."""

    family: str
    """Kind of model."""
    data: BaseModel
    """Where the market comes from."""
    folds: BaseModel
    """Walk-forward folds."""
    parameters: dict[str, Parameter]
    """What varies: name -> kind with its range, or a bare value that is fixed."""
    search: SearchSection = SearchSection()
    """How configs are proposed and trials are stopped."""
    fidelity: FidelitySection = FidelitySection()
    """How finely a trial reports."""
    objectives: tuple[Objective, ...] = Field(
        default=(Objective(metric="val_loss", direction="minimize"),), min_length=1
    )
    """What is improved; the first decides where an optimizer or a rule takes only one."""
    constraints: tuple[Constraint, ...] = ()
    """What a trial must keep to."""
    budget: BudgetSection
    """When the search is over."""
    resources: ResourcesSection = ResourcesSection()
    """What a trial gets."""
    tracking: TrackingSection = TrackingSection()
    """The mirror in MLflow."""
    profiles: dict[str, dict[str, Any]] = Field(default={})
    """Name -> changes to the file, chosen by `--profile`."""

    def space(self) -> Space:
        """Return the space that the parameters span."""
        return Space(self.parameters)

    def minimised(self) -> tuple[objective.Objective, ...]:
        """Return the objectives as the search takes them."""
        words: dict[str, Literal["min", "max"]] = {"minimize": "min", "maximize": "max"}
        return tuple(objective.Objective(o.metric, words[o.direction]) for o in self.objectives)

    def bounds(self) -> tuple[objective.Constraint, ...]:
        """Return the constraints as the search takes them."""
        return tuple(objective.Constraint(c.metric, c.bound, c.limit) for c in self.constraints)

    def problems(self) -> tuple[Problem, ...]:
        """Return what is wrong across several places of the file."""
        return (
            *condition_problems(self.parameters),
            *self._fold_problems(),
            *self._objective_problems(),
            *self._optimizer_problems(),
            *self._budget_problems(),
            *self._unlock_problems(),
        )

    def limits(self) -> dict[str, Any]:
        """Return when the search is over before its trials are: settings of `search.stopping.whole_search`."""
        chosen = self.budget.model_dump(include={"gpu_hours", "patience", "least_improvement", "give_up_after"})
        return {**chosen, "gpus_per_trial": self.resources.gpus_per_trial}

    def _budget_problems(self) -> tuple[Problem, ...]:
        if self.budget.gpu_hours is None or self.resources.gpus_per_trial > 0:
            return ()
        text = "expected resources.gpus_per_trial above 0 with it, found 0; nothing would be counted: drop it"
        return (Problem(("budget", "gpu_hours"), text),)

    def _unlock_problems(self) -> Iterator[Problem]:
        unlock = self.search.unlock
        if unlock is None:
            return
        path, name = ("search", "unlock"), unlock.parameter
        kind = self.parameters.get(name)
        if not isinstance(kind, Choice | Ordered):
            yield Problem((*path, "parameter"), f"expected a choice or ordered parameter, found {shown(name)}")
            return
        if kind.conditions or any(name in other.conditions for other in _kinds(self.parameters)):
            text = f"expected a parameter without conditions that no other has it in its own, found {shown(name)}"
            yield Problem((*path, "parameter"), text)
        for value in (*unlock.locked, unlock.instead):
            if kind.objection(value) is not None:
                yield Problem(path, f"expected values of {name}, found {shown(value)}; correct locked and instead")
        if identity(unlock.instead) in {identity(value) for value in unlock.locked}:
            yield Problem((*path, "instead"), f"expected a value that is not locked, found {shown(unlock.instead)}")
        for position, point in enumerate(self.search.enqueue):
            if identity(point.get(name)) in {identity(value) for value in unlock.locked}:
                text = f"expected a value that is not locked by search.unlock, found {shown(point[name])}; drop it"
                yield Problem(("search", "enqueue", position, name), text)

    def _optimizer_problems(self) -> Iterator[Problem]:
        name = self.search.optimizer
        own = [key for key, optimizers in SETTING_OF.items() if name in optimizers]
        for key, optimizers in SETTING_OF.items():
            given = getattr(self.search, key)
            if name not in optimizers and given != SearchSection.model_fields[key].default:
                text = f"expected a setting that {name} has ({', '.join(own) or 'none here'}), found {key}: "
                text += f"{shown(given)}; drop it, or choose an optimizer that has it ({', '.join(optimizers)})"
                yield Problem(("search", key), text)

    def _fold_problems(self) -> tuple[Problem, ...]:
        most = getattr(self.folds, "max_folds", None)
        if most is None:
            return ()
        found = []
        if most < 2:
            text = f"expected at least 2 folds, found {most}; one fold gives no standard error"
            found.append(Problem(("folds", "max_folds"), text))
        stopping = self.search.stopping
        first = getattr(stopping, "min_folds", 0)
        if first + getattr(stopping, "final_folds", 0) > most:
            text = f"expected at most folds.max_folds ({most}), found {first}; no trial could be stopped"
            if isinstance(stopping, FoldRacing):
                text = f"expected min_folds and final_folds of {most} (folds.max_folds) together at most, found more"
            found.append(Problem(("search", "stopping", "min_folds"), text))
        return tuple(found)

    def _objective_problems(self) -> tuple[Problem, ...]:
        found = []
        for section, named in (("objectives", self.objectives), ("constraints", self.constraints)):
            metrics = [entry.metric for entry in named]
            for position, metric in enumerate(metrics):
                if metric in metrics[:position]:
                    text = f"expected each metric once, found {metric} again; drop one"
                    found.append(Problem((section, position, "metric"), text))
        if len(self.objectives) > 1 and self.search.optimizer == "cma_es":
            text = f"expected one objective for cma_es, found {len(self.objectives)}; use nsga2, tpe or {OURS}"
            found.append(Problem(("search", "optimizer"), text))
        return tuple(found)


def space_file_model(data: type[BaseModel], folds: type[BaseModel], families: tuple[str, ...]) -> type[SpaceFile]:
    """Return the model of a space file for the given classes of `data` and `folds` and the given families."""
    one_of: Any = Literal[families]
    model: type[SpaceFile] = create_model(
        "SpaceFile",
        __base__=SpaceFile,
        __doc__="A search: data, folds, family, what varies, how it is searched, and how much of it.",
        family=(one_of, Field(description="Kind of model.")),
        data=(data, Field(default_factory=data, description="Where the market comes from.")),
        folds=(folds, Field(default_factory=folds, description="Walk-forward folds.")),
    )
    return model


def _kinds(parameters: Mapping[str, Any]) -> Iterator[Kind]:
    """Yield the parameters that are no bare values."""
    return (kind for kind in parameters.values() if isinstance(kind, Kind))


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema by which an editor completes and checks a space file.

    It says more than pydantic's own: the key that names a kind is required, so that editors tell the kinds apart, and a
    profile is a file in which nothing is required.
    """
    schema = model.model_json_schema()
    definitions = schema["$defs"]
    for definition in definitions.values():
        _require_tag(definition)
    sections = schema["properties"]
    partial = {name: _partial(part, definitions) for name, part in sections.items() if name != "profiles"}
    definitions["Profile"] = {"type": "object", "additionalProperties": False, "properties": partial}
    sections["profiles"] |= {"additionalProperties": {"$ref": "#/$defs/Profile"}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


IDENTITY = ("family", "data", "folds", "parameters", "search", "fidelity", "objectives", "constraints")
"""Sections that make a search what it is; the others may change when it is resumed."""


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what keeps a run from being resumed with another file: one line per value that identifies the search.

    Args:
        saved: Content of the run's space file (`Document.content`).
        given: Content of the file that it shall be resumed with.
    """
    found: list[str] = []
    for section in IDENTITY:
        _compare(section, saved.get(section), given.get(section), found)
    before, now = (content.get("resources", {}).get("workers_per_trial", 1) for content in (saved, given))
    _compare("resources.workers_per_trial", before, now, found)  # the effective batch grows with them
    return tuple(found)


def _compare(key: str, saved: Any, given: Any, found: list[str]) -> None:
    if isinstance(saved, Mapping) and isinstance(given, Mapping):
        for name in dict.fromkeys((*saved, *given)):
            _compare(f"{key}.{name}", saved.get(name), given.get(name), found)
    elif saved != given:
        found.append(f"{key}: expected {shown(saved)} as in the run, found {shown(given)}; start a new run instead")


def _require_tag(definition: dict[str, Any]) -> None:
    for name in ("type", "rule"):
        field = definition.get("properties", {}).get(name, {})
        if "const" in field and name not in definition.get("required", ()):
            definition["required"] = [name, *definition.get("required", ())]
            field.pop("default", None)


def _partial(part: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a section in which no key is required; lists and parameters are replaced whole and stay as they are."""
    if "$ref" not in part:
        return part
    name = part["$ref"].removeprefix("#/$defs/")
    definitions[f"{name}Changes"] = {k: v for k, v in definitions[name].items() if k != "required"}
    return {**part, "$ref": f"#/$defs/{name}Changes"}
