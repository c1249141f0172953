"""Everything that can be checked before a search begins: space file, flags, family, times of the data."""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from search.settings import FidelitySection, SpaceFile
    from search.space_file import Document
    from search.trial import Config, Rung
    from search.warm_start import EarlierSearch
    from trainables.data.config import DataConfig, FoldsConfig
    from trainables.data.loader import MarketOutline

MOST_DIFFERENCES = 5
"""Lines about what keeps a run from being resumed; the first say enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A search that was checked completely and has not begun."""

    spec: SpaceFile
    data: DataConfig
    folds: FoldsConfig
    document: Document
    config_class: Any
    market: MarketOutline
    ladder: tuple[Rung, ...]
    warnings: tuple[str, ...]
    name: str
    seed: int
    earlier: EarlierSearch | None

    @property
    def fidelity(self) -> dict[str, Any]:
        """Name and shares of the scale at which every trial of the search is trained (SEARCH-16)."""
        return _fidelity(self.spec.fidelity)

    def full_config(self, config: Config) -> Any:
        """Return the family's config: what the space leaves out takes its default."""
        return self.config_class.model_validate_json(json.dumps(dict(config)))


def set_up(chosen: argparse.Namespace) -> Setup:
    """Check the space file, the flags and the times of the data; nothing is written and nothing starts."""
    from search.errors import SpaceError
    from search.trial import ladder
    from search.validity import check_space
    from trainables.catalogue import config_class
    from trainables.data.loader import outline

    spec, document, name = _read_space(chosen)
    family = config_class(spec.family)
    problems, warnings = check_space(
        spec.space(), family, spec.search.enqueue, document,
        optimizer=spec.search.optimizer, trials=spec.budget.trials, allow_partial=spec.search.allow_partial,
        machine=machine(spec),
        constraints=spec.bounds(),
    )  # fmt: skip
    if problems:
        raise SpaceError(problems)
    data, folds = cast("DataConfig", spec.data), cast("FoldsConfig", spec.folds)
    family.check_data(spec.space().reach(), data)
    market = outline(data, folds)
    return Setup(
        spec=spec,
        data=data,
        folds=folds,
        document=document,
        config_class=family,
        market=market,
        ladder=ladder(len(market.plan.windows), spec.fidelity.rungs_per_fold),
        warnings=warnings,
        name=name,
        seed=spec.search.seed or 0,
        earlier=None if chosen.warm_start is None else _earlier(chosen.warm_start, spec, family),
    )


def _fidelity(section: FidelitySection) -> dict[str, Any]:
    from trainables.fidelity import SCALES

    own = section.model_dump(include={"width_frac", "depth_frac", "data_frac"}, exclude_none=True)
    return {**SCALES[section.scale].model_dump(), **own}


def _earlier(source: str, spec: SpaceFile, config_class: Any) -> EarlierSearch:
    """Read the source of a warm start; nothing is written to it."""
    from search.validity import resolved
    from search.warm_start import earlier_search

    def read_mlflow(uri: str, experiment: str) -> list[dict[str, Any]]:
        from analysis.mlflow_tracker import stored_trials

        return stored_trials(uri, experiment)

    def resolve(config: Config) -> Mapping[str, Any] | None:
        return resolved(config, config_class)

    return earlier_search(source, spec.minimised()[0], read_mlflow, resolve, _fidelity)


def _read_space(chosen: argparse.Namespace) -> tuple[SpaceFile, Document, str]:
    """Return the space file with profile and flags, and the name of the search."""
    from search.settings import space_file_model
    from trainables.catalogue import CONFIGS
    from trainables.data.config import DataConfig, FoldsConfig

    model = space_file_model(DataConfig, FoldsConfig, tuple(CONFIGS))
    flags = [f"search.seed={chosen.seed}"] * (chosen.seed is not None)
    flags += [f"budget.trials={chosen.num_samples}"] * (chosen.num_samples is not None)
    flags += [f"tracking.uri={json.dumps(chosen.mlflow_uri)}"] * (chosen.mlflow_uri is not None)
    overrides = [*chosen.overrides, *flags]
    return _kept_space(chosen, model, overrides) if chosen.resume else _new_space(chosen, model, overrides)


def _new_space(chosen: argparse.Namespace, model: Any, overrides: list[str]) -> tuple[SpaceFile, Document, str]:
    """Read the space file of a search that begins; a seed is drawn where none is given."""
    from search.errors import SpaceError
    from search.space_file import load

    if chosen.space is None:
        raise SpaceError("--space: expected a space file, found none; try --space spaces/condor.yaml --profile laptop")
    spec, document = load(chosen.space, model=model, profile=chosen.profile, overrides=overrides)
    if spec.search.seed is None:
        overrides = [*overrides, f"search.seed={_seed_before(chosen.warm_start)}"]
        spec, document = load(chosen.space, model=model, profile=chosen.profile, overrides=overrides)
    return spec, document, "-".join(filter(None, (chosen.space.stem, chosen.profile)))


def _kept_space(chosen: argparse.Namespace, model: Any, overrides: list[str]) -> tuple[SpaceFile, Document, str]:
    """Read the space file of the run folder; flags, and a space file beside them, must say the same."""
    from search.errors import SpaceError
    from search.settings import differences
    from search.space_file import load

    kept = chosen.resume / "space.yaml"
    if not kept.is_file() or not (chosen.resume / "journal.sqlite").is_file():
        raise SpaceError(
            f"--resume {chosen.resume}: expected a run folder with space.yaml and journal.sqlite, found none; "
            "give the last line that a search printed"
        )
    spec, document = load(kept, model=model, overrides=overrides)
    saved, given = load(kept, model=model)[1].content, document.content
    if chosen.space is not None:
        _, fresh = load(chosen.space, model=model, profile=chosen.profile, overrides=overrides)
        search = fresh.content["search"]
        seed = saved["search"]["seed"] if search["seed"] is None else search["seed"]
        given = fresh.content | {"search": search | {"seed": seed}}
    if found := differences(saved, given):
        more = [f"and {len(found) - MOST_DIFFERENCES} more values differ"] if len(found) > MOST_DIFFERENCES else []
        raise SpaceError(tuple(f"--resume {chosen.resume}: {line}" for line in [*found[:MOST_DIFFERENCES], *more]))
    return spec, document, chosen.resume.name


def _seed_before(source: str | None) -> int:
    """Return the seed of the run that a search begins from, so that it finds its folds again; else a fresh one."""
    from search.study import Study

    if source is not None and (Path(source) / "journal.sqlite").is_file():
        return int(Study.read(Path(source) / "journal.sqlite").header["study"]["seed"])
    return secrets.randbelow(2**31)


def machine(spec: SpaceFile) -> dict[str, Any]:
    """Return what a config must be able to run on: the arguments of `FamilyConfig.cannot_run`."""
    return {"has_gpu": spec.resources.gpus_per_trial > 0, "engine": spec.resources.engine}
