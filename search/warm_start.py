"""What an earlier search tells a new one: observations where both mean the same by them, else configs alone.

Results are comparable where the family, the scored timestamps, the targets there and the fidelity are equal. Then the
optimizer hears the earlier trials at the rungs that they reached, and the leaders are tried first (their folds are
known, so that costs nothing). Where only the fidelity differs and was lower, the best tenth is promoted: tried first,
and trained anew (SEARCH-16). Any other results give configs, never values: the leaders are tried first and that is all.
Where family and scored rows are equal, the number of trials tried before counts on, whatever their fidelity. A config
that is no point of the new space is left out and counted.

Everything that is taken stands in the header of the new journal: a replay needs nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.charter import prior_from
from search.errors import JournalError, SpaceError
from search.objective import Objective
from search.settings import FidelitySection
from search.space import Space
from search.study import Study
from search.trial import Config, Observation, Rung, Trial, TrialState
from search.yaml_tree import read_bytes

N_LEADERS = 5
"""Best complete trials of an earlier search that a new one tries first."""
PROMOTED_ONE_IN = 10
"""Of the complete trials of an earlier search at a lower fidelity, the share that a new one tries first (SEARCH-16)."""
SAME_ROWS = ("family", "scored")
"""Facts that are equal where the same kind of model was scored on the same rows."""
COMPARABLE = (*SAME_ROWS, "fidelity")
"""Facts that must be equal for values to mean the same."""
SHARES = ("width_frac", "depth_frac", "data_frac")
"""What two fidelities are compared by; the name of a scale is told only."""
JOURNAL, SPACE = "journal.sqlite", "space.yaml"

ReadMlflow = Callable[[str, str], Sequence[Mapping[str, Any]]]
Resolve = Callable[[Config], Mapping[str, Any] | None]
"""Config -> all fields of the family, defaults included; None where the family refuses it."""
FidelityOf = Callable[[FidelitySection], Mapping[str, Any]]
"""Section of a space file -> `scale`, its name, and `SHARES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierTrial:
    """A trial of an earlier search.

    Attributes:
        trial: As it ended; its config is whatever the source says.
        value: What leaders are chosen by, smaller is better; None where it has none.
    """

    trial: Trial
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierSearch:
    """What a source of a warm start holds.

    Attributes:
        name: Of the source; begins the ids of its trials.
        trials: In order.
        facts: What is known of `COMPARABLE`.
        n_tried: Trials that stand behind it, those that it inherited included.
        seed: Of the search; None where unknown.
    """

    name: str
    trials: Sequence[EarlierTrial]
    facts: Mapping[str, Any] = field(default_factory=dict)
    n_tried: int = 0
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """What a new search takes over; JSON but for the trials.

    Attributes:
        source: Name of the earlier search; empty: there is none.
        is_comparable: Whether values were taken, not only configs.
        prior: Trials that the optimizer hears first.
        enqueue: Configs that are tried first.
        n_inherited: Trials tried before on these folds, at any fidelity, that this journal does not hold.
        n_left_out: Trials of the source whose config is no point of the space.
        promoted_from: The lower fidelity, in words, whose best tenth is tried first; empty: nothing is promoted.
    """

    source: str = ""
    is_comparable: bool = False
    prior: tuple[Trial, ...] = ()
    enqueue: tuple[Config, ...] = ()
    n_inherited: int = 0
    n_left_out: int = 0
    promoted_from: str = ""

    def to_header(self) -> dict[str, Any]:
        """Return it as JSON values, less the prior, which the charter of the study keeps."""
        return {
            "source": self.source,
            "is_comparable": self.is_comparable,
            "enqueue": [dict(config) for config in self.enqueue],
            "n_inherited": self.n_inherited,
            "n_left_out": self.n_left_out,
            "promoted_from": self.promoted_from,
        }

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> WarmStart:
        """Read the header of a journal that has what `to_header` wrote as `warm_start`, and the charter as `study`."""
        body, prior = header["warm_start"], header["study"]["prior"]
        return cls(**{**body, "enqueue": tuple(body["enqueue"]), "prior": tuple(prior_from(told) for told in prior)})

    def describe(self) -> str:
        """Return one line for a person."""
        n = len(self.enqueue)
        if self.is_comparable:
            taken = f"{len(self.prior)} results are known, its {n} leaders are tried first"
        elif self.promoted_from:
            tried = "1 config is" if n == 1 else f"{n} configs are"
            taken = f"at {self.promoted_from}, so its best tenth is promoted: {tried} tried first; no value is compared"
        else:
            taken = f"other data, folds, targets or fidelity, so no value is taken; its {n} leaders are tried first"
        counted = f"; {self.n_inherited} trials tried before count on" if self.n_inherited else ""
        left_out = f"; {self.n_left_out} of its trials lie outside this space" if self.n_left_out else ""
        return f"warm start from {self.source}: {taken}{counted}{left_out}"


def earlier_search(
    source: str, objective: Objective, read_mlflow: ReadMlflow, resolve: Resolve, fidelity_of: FidelityOf
) -> EarlierSearch:
    """Return the search that `--warm-start` names.

    Args:
        source: A run folder, `mlflow:URI#EXPERIMENT` or `optuna:URL#STUDY`.
        objective: By which the leaders of a run are chosen.
        read_mlflow: `analysis.mlflow_tracker.stored_trials`, for this package does not import it.
        resolve: Completes a config as the family does.
        fidelity_of: Puts numbers to the fidelity that a space file names.

    Raises:
        SpaceError: The source is not there, or cannot be read.
    """
    kind, colon, rest = source.partition(":")
    if not colon or kind not in ("mlflow", "optuna"):
        return earlier_run(Path(source), objective, fidelity_of)
    place, hash_sign, name = rest.rpartition("#")
    if not hash_sign or not place or not name:
        raise SpaceError(f"--warm-start: expected {kind}:PLACE#NAME, found {source!r}; add # and a name")
    if kind == "optuna":
        return earlier_study(place, name)
    try:
        records = read_mlflow(place, name)
    except ValueError as error:
        raise SpaceError(f"--warm-start: {error}") from error
    return earlier_records(name, [{**r, "parameters": typed(r["parameters"], resolve)} for r in records])


def earlier_run(run_dir: Path, objective: Objective, fidelity_of: FidelityOf) -> EarlierSearch:
    """Return the search of a run folder, whatever state it is in.

    Raises:
        SpaceError: There is no readable journal, or a space file that cannot be understood.
    """
    try:
        history = Study.read(run_dir / JOURNAL)
    except (JournalError, OSError) as error:
        raise SpaceError(f"--warm-start {run_dir}: expected a run folder with {JOURNAL}: {error}") from error
    header, name = history.header, run_dir.resolve().name
    trials = [
        EarlierTrial(trial=replace(trial, trial_id=f"{name}/{trial.trial_id}"), value=objective.loss(trial))
        for trial in history.trials.values()
    ]
    told = {} if "fidelity" in header else {"fidelity": _fidelity_of_space_file(run_dir / SPACE, fidelity_of)}
    return EarlierSearch(
        name=name,
        trials=trials,
        facts={key: header.get(key) for key in COMPARABLE} | told,
        n_tried=history.n_accepted + header.get("warm_start", {}).get("n_inherited", 0),
        seed=header["study"]["seed"],
    )


def _fidelity_of_space_file(file: Path, fidelity_of: FidelityOf) -> Mapping[str, Any] | None:
    """Return what a run was trained at whose journal does not say; None where there is no space file either.

    The file of a run has every default written out: one that names no scale is older than scales, and was whole.
    """
    if not file.is_file():
        return None
    section = read_bytes(file.read_bytes(), str(file)).plain().get("fidelity", {})
    try:
        return fidelity_of(FidelitySection.model_validate(section))
    except ValidationError as error:
        raise SpaceError(f"{file}: fidelity: expected what a run wrote, found {section}; restore the file") from error


def earlier_study(url: str, name: str) -> EarlierSearch:
    """Return a study of plain Optuna: whatever its values mean, they are not ours, so it gives configs.

    Raises:
        SpaceError: The storage cannot be read or has no such study.
    """
    from search.optimizers.optuna_samplers import stored_trials

    try:
        stored, is_more_better = stored_trials(url, name)
    except ValueError as error:
        raise SpaceError(f"--warm-start: {error}") from error
    trials = []
    for number, told in enumerate(stored):
        value = told.value if told.value is None or not is_more_better else -told.value
        trial = _bare(f"{name}/{number}", number, told.parameters, complete=told.is_complete)
        trials.append(EarlierTrial(trial=trial, value=value))
    return EarlierSearch(name=name, trials=trials)


def earlier_records(name: str, records: Sequence[Mapping[str, Any]]) -> EarlierSearch:
    """Return the trials that a tracking server keeps; it has their validation loss by fold, and nothing else by fold.

    Args:
        name: Of the experiment.
        records: Mappings with `trial_id`, `state`, `parameters`, `fold_losses` (pairs) and the facts `COMPARABLE`.
    """
    trials = []
    for number, record in enumerate(records):  # the server does not keep numbers of rows, so folds count alike
        observations = tuple(
            Observation(rung=0, fold=fold, share=1.0, metrics={"val_loss": loss}, n_scored=1, seconds=0.0)
            for fold, loss in record["fold_losses"]
        )
        bare = _bare(f"{name}/{record['trial_id']}", number, record["parameters"], complete=False)
        trial = replace(bare, state=TrialState(record["state"]), observations=observations)
        trials.append(EarlierTrial(trial=trial, value=Objective().loss(trial)))
    facts = {key: records[0].get(key) for key in COMPARABLE} if records else {}
    return EarlierSearch(name=name, trials=trials, facts=facts, n_tried=len(trials))


def warm_start(
    earlier: EarlierSearch, *, space: Space, ladder: Sequence[Rung], facts: Mapping[str, Any], resolve: Resolve
) -> WarmStart:
    """Return what a new search takes over from an earlier one.

    Args:
        earlier: The earlier search.
        space: Of the new search, wider or narrower or just the same.
        ladder: Of the new search.
        facts: `COMPARABLE` of the new search.
        resolve: Completes a config as the family does.

    Raises:
        SpaceError: The source has trials, and none of their configs is a point of the space.
    """
    fitting = [(known, as_point(known.trial.config, space, resolve)) for known in earlier.trials]
    points = [(known, point) for known, point in fitting if point is not None]
    if earlier.trials and not points:
        raise SpaceError(
            f"--warm-start {earlier.name}: expected configs of this space, found {len(earlier.trials)} of another; "
            f"the first: {json.dumps(dict(earlier.trials[0].trial.config))[:200]}"
        )
    has_same_rows = all(earlier.facts.get(key) is not None and earlier.facts[key] == facts[key] for key in SAME_ROWS)
    fidelity = earlier.facts.get("fidelity") if has_same_rows else None
    gaps = [facts["fidelity"][share] - fidelity[share] for share in SHARES] if fidelity else []
    is_comparable = bool(gaps) and not any(gaps)
    is_lower = any(gaps) and min(gaps) >= 0
    complete = [
        (known.value, known.trial.number, known.trial.trial_id, point)
        for known, point in points
        if known.value is not None and known.trial.state is TrialState.COMPLETE
    ]
    n_leaders = math.ceil(len(complete) / PROMOTED_ONE_IN) if is_lower else N_LEADERS
    leaders = sorted(complete, key=lambda entry: entry[:2])[:n_leaders]
    tried_first = {trial_id for _, _, trial_id, _ in leaders}
    rest = [(known.trial, point) for known, point in points if known.trial.trial_id not in tried_first]
    heard = [as_heard(trial, point, ladder) for trial, point in rest] if is_comparable else []
    prior = [trial for trial in heard if trial is not None]
    # Whatever its fidelity, a trial on the same rows was a chance to look good there by luck, and what is promoted was
    # chosen among them by that. Leaders whose values are taken come again as the trials that they were and count once;
    # what is promoted is trained anew as another model, so both trainings count.
    n_again = len(leaders) if is_comparable else 0
    return WarmStart(
        source=earlier.name,
        is_comparable=is_comparable,
        prior=tuple(replace(trial, number=k - len(prior)) for k, trial in enumerate(prior)),
        enqueue=tuple(point for *_, point in leaders),
        n_inherited=max(0, earlier.n_tried - n_again) if has_same_rows else 0,
        n_left_out=len(fitting) - len(points),
        promoted_from=_in_words(fidelity) if fidelity and is_lower else "",
    )


def _in_words(fidelity: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{name.removesuffix('_frac')} {fidelity[name]:g}" for name in SHARES)
    return f"scale {fidelity['scale']} ({shares})"


def as_point(config: Config, space: Space, resolve: Resolve) -> Config | None:
    """Return the point of a space that means the same as a config of another; None where there is none.

    A parameter that the config does not name has the family's default, not the new space's. What the new space does
    not name must have the family's default, too.
    """
    whole, usual = resolve(config), resolve({})
    if whole is None or usual is None:
        return None
    point: dict[str, Any] = {}
    for name in space.parameters:
        if name in whole and space.is_active(name, point):
            point[name] = whole[name]
    is_elsewhere_usual = all(value == usual[name] for name, value in whole.items() if name not in point)
    return point if is_elsewhere_usual and not space.problems(point) else None


def as_heard(trial: Trial, point: Config, ladder: Sequence[Rung]) -> Trial | None:
    """Return an earlier trial as an optimizer of the new search shall hear it; None where it says nothing.

    It keeps the rungs that the new ladder has too. With every fold complete it is complete, with some it was stopped:
    never more than what was seen. Failed and lost trials say nothing, and neither do those that began with the weights
    of another: what they scored is not what their config alone would.
    """
    if trial.inherit:
        return None
    seen = {(o.fold, o.share): o for o in trial.observations}
    points = [(rung.index, (rung.fold, rung.share)) for rung in ladder]
    kept = tuple(replace(seen[at], rung=index, blocks=()) for index, at in points if at in seen)
    untrainable = trial.state in (TrialState.OUT_OF_MEMORY, TrialState.DIVERGED)
    if not untrainable and not kept:
        return None
    if not untrainable and trial.state in (TrialState.FAILED, TrialState.LOST):
        return None
    state = trial.state
    if not untrainable:
        folds = {o.fold for o in kept if o.share >= 1.0}
        is_complete = folds == {rung.fold for rung in ladder}
        state = TrialState.COMPLETE if is_complete else TrialState.STOPPED
    return Trial(
        number=trial.number,
        trial_id=trial.trial_id,
        config=point,
        origin="earlier",
        generation=0,
        parents=(),
        seed=0,
        state=state,
        observations=kept,
    )


def typed(texts: Mapping[str, str], resolve: Resolve) -> Config:
    """Return parameters that were kept as text with their values: JSON where the family takes it so, else the text."""
    config: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        config[name] = value if resolve({name: value}) is not None else text
    return config


def _bare(trial_id: str, number: int, config: Config, *, complete: bool) -> Trial:
    state = TrialState.COMPLETE if complete else TrialState.FAILED
    return Trial(
        number=number, trial_id=trial_id, config=config, origin="earlier", generation=0, parents=(), seed=0, state=state
    )
