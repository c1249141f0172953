"""What a finished search leaves in MLflow beside its trials: folds of the finalists, and the model to be used.

The model is a `pyfunc` that scores raw bars (`trainables.serve`, named here and not imported). It is that of the
confidence set, averaged, or of the leader where the set is too large to be anybody's model.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import polars as pl
from mlflow.entities import Metric, Run
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema

from analysis import vault
from analysis.run_folder import RunFolder

LOADER = "trainables.serve"
"""Module whose `_load_pyfunc` MLflow calls with the folder of `MODELS`."""
CODE = ("trainables", "analysis")
MOST_MEMBERS = 7
"""A larger confidence set is no ensemble but a lack of evidence: the leader is taken."""
PACKAGES = ("torch", "numpy", "scipy", "pandas", "polars", "pyarrow", "numba", "pydantic", "safetensors", "arch",
            "TA-Lib", "exchange_calendars", "gudhi")  # fmt: skip
_log = logging.getLogger(__name__)


def finalists(run: RunFolder) -> tuple[str, ...]:
    """Return the trials that stand for the run: its confidence set where it is small, else the leader; none without."""
    try:
        leader = vault.choose(run, "leader")
    except ValueError:
        return ()
    try:
        members = vault.choose(run, "confidence_set")
    except ValueError:
        return leader
    return members if len(members) <= MOST_MEMBERS else leader


def log_folds(client: MlflowClient, run: RunFolder, trial_id: str, child: Run) -> None:
    """Make a run below that of a trial for each of its folds; those that are there stay."""
    parent = child.info.run_id
    query = f"tags.`mlflow.parentRunId` = '{parent}'"
    known = {r.data.tags.get("fold") for r in client.search_runs([child.info.experiment_id], query, max_results=1000)}
    own = run.folds.filter((pl.col("trial_id") == trial_id) & (pl.col("share") >= 1.0))
    for fold in sorted(own["fold"].unique().to_list()):
        if str(fold) in known:
            continue
        rows = own.filter(pl.col("fold") == fold)
        window = run.plan.folds[fold] if fold < len(run.plan.folds) else {}
        tags = {"mlflow.parentRunId": parent, "fold": str(fold), **{k: str(v) for k, v in window.items()}}
        made = client.create_run(child.info.experiment_id, tags=tags, run_name=f"{trial_id} fold {fold}")
        now = child.info.end_time or child.info.start_time
        pairs = [(n, v) for n, v in rows.select("metric", "value").iter_rows() if v is not None]
        client.log_batch(made.info.run_id, metrics=[Metric(name, value, now, 0) for name, value in pairs[:60]])
        client.set_terminated(made.info.run_id, status="FINISHED", end_time=now)


def register(client: MlflowClient, run: RunFolder, parent: Run, name: str) -> str | None:
    """Log the finalists' models as one `pyfunc` below the run of the search and register a version of it.

    Args:
        client: Of the tracking server.
        run: The run folder.
        parent: The run of the search.
        name: Of the registered model.

    Returns:
        The new version; None where no finalist left a model, or the search has a version already.
    """
    if any(v.run_id == parent.info.run_id for v in client.search_model_versions(f"name='{name}'")):
        return None
    chosen = finalists(run)
    folders = [run.path / "checkpoints" / trial for trial in chosen]
    usable = [(t, f) for t, f in zip(chosen, folders, strict=True) if (f / "model.json").is_file()]
    if not usable:
        _log.info("registry: no finalist of %s left a model", run.path)
        return None
    with tempfile.TemporaryDirectory(prefix="condor-model-") as temporary:
        place = Path(temporary) / "model"
        with warnings.catch_warnings():  # it asks for an example of the input, which would be scored: minutes of bars
            warnings.simplefilter("ignore", UserWarning)
            mlflow.pyfunc.save_model(
                path=str(place),
                loader_module=LOADER,
                data_path=str(_gathered(usable, Path(temporary) / "members")),
                code_paths=[str(_source(package, Path(temporary))) for package in CODE],
                signature=_signature([folder for _, folder in usable]),
                pip_requirements=_requirements(run.plan.versions),
                metadata={"trials": [trial for trial, _ in usable], "family": run.plan.family},
            )
        client.log_artifacts(parent.info.run_id, str(place), "model")
    return _version(client, run, parent, name, [trial for trial, _ in usable])


def _version(client: MlflowClient, run: RunFolder, parent: Run, name: str, trials: Sequence[str]) -> str:
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name, description="Models of condor-search; each version is one search.")
    source = f"{parent.info.artifact_uri}/model"
    made = client.create_model_version(
        name, source, run_id=parent.info.run_id,
        tags={"trials": ",".join(trials), "data_snapshot": run.plan.data_snapshot, "commit": run.plan.commit},
    )  # fmt: skip
    return str(made.version)


def _gathered(members: Sequence[tuple[str, Path]], target: Path) -> Path:
    for trial, folder in members:
        (target / trial).mkdir(parents=True)
        for file in ("model.json", "model.safetensors"):
            shutil.copy2(folder / file, target / trial / file)
    return target


def _source(package: str, temporary: Path) -> Path:
    """Return a copy of a package of ours without caches: what the model runs on."""
    root = Path(__file__).resolve().parents[1]
    target = temporary / "code" / package
    shutil.copytree(root / package, target, ignore=shutil.ignore_patterns("__pycache__", "*.j2"))
    return target


def _signature(folders: Sequence[Path]) -> ModelSignature:
    described = [json.loads((folder / "model.json").read_text(encoding="utf-8")) for folder in folders]
    outputs: list[str] = described[0].get("predictions", [])
    bars = [ColSpec(DataType.datetime, "timestamp")]
    bars += [ColSpec(DataType.double, name) for name in ("open", "high", "low", "close", "volume")]
    said = [ColSpec(DataType.datetime, "timestamp"), *(ColSpec(DataType.double, name) for name in outputs)]
    return ModelSignature(inputs=Schema(bars), outputs=Schema(said))


def _requirements(versions: Any) -> list[str]:
    import importlib.metadata

    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in PACKAGES]
