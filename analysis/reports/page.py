"""The report page: one self-contained `report.html` that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from statistics import median
from typing import Any

import plotly.graph_objects as go
import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis import evidence as common
from analysis import vault
from analysis.atomic import write_text
from analysis.measures import importance
from analysis.measures.gates import ADVICE
from analysis.measures.ic import IcEstimate
from analysis.measures.importance import Axis, Importance
from analysis.reports import (
    amounts,
    diagnosis,
    final,
    flat,
    honesty,
    leader_plots,
    leaderboard,
    plots,
    regimes,
    search_plots,
    skill,
    verdict,
)
from analysis.reports.honesty import Honesty
from analysis.reports.leaderboard import SHOWN, Leaderboard
from analysis.reports.parameters import at_an_edge, axes_of, numeric_places
from analysis.reports.verdict import Verdict
from analysis.run_folder import EvidenceCheck, RunFolder

MOST_PARAMETERS = 6
"""Columns of parameters on the leaderboard, the most important ones."""
MOST_ROWS = 25
"""Leaderboard rows shown at once; the others are one click away, and all are in ranking.csv."""


def write(run: RunFolder) -> tuple[Leaderboard, Verdict]:
    """Write `ranking.csv` and `report.html` into the run folder; return the leaderboard and the verdict.

    Raises:
        ValueError: The plan names an order that does not exist.
        OSError: The folder cannot be written to.
    """
    board = leaderboard.build(run)
    leaderboard.write_csv(run, board)
    text, said = _page(run, board)
    write_text(run.path / "report.html", text)
    return board, said


def render(run: RunFolder, board: Leaderboard) -> str:
    """Return the page as text."""
    return _page(run, board)[0]


def _page(run: RunFolder, board: Leaderboard) -> tuple[str, Verdict]:
    check = run.check_evidence()
    evidence, left_out = common.gather(run)
    judged = honesty.assess(
        evidence,
        n_started=run.n_ever_tried,
        parameters=numeric_places(run, evidence.trial_ids) if evidence else {},
    )
    leader = _leader_evidence(run, board, check)
    skills, ics = _leader_skill(leader)
    shown = [m for m in SHOWN if m in run.metrics]
    axes = axes_of(run, board.ranked)
    found = importance.ped_anova(axes, [e.values["val_loss"] for e in board.ranked])
    varying = sorted(_varying(board, run.parameters), key=lambda name: -found[name].share if name in found else 0.0)
    figures = _figures(run, board, judged, leader, ics)
    figures |= _parameter_figures(board, judged, axes, found)
    ledger, scores = vault.read_ledger(run.path), vault.scores(run)
    edges = at_an_edge(axes, board.ranked)
    by_regime = regimes.by_regime(evidence, leader)
    words = flat.sentences(board, flat.around(axes, board.ranked))
    order = regimes.sentences(by_regime, len(evidence.trial_ids) if evidence else 0)
    said = verdict.write(
        run.plan, board, check, skills, ics, judged, left_out, edges, words, order, ledger, scores, run.n_tried
    )
    text = _template().render(
        title=run.path.resolve().name,
        plan=run.plan,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        verdict=said,
        board=board,
        honesty=judged,
        level=honesty.LEVEL,
        metrics=shown,
        words=verdict.METRIC_WORDS,
        states=verdict.STATE_WORDS,
        amount=amounts.amount,
        digits={m: _digits(board, m) for m in shown},
        most_rows=MOST_ROWS,
        varying=varying[:MOST_PARAMETERS],
        n_hidden=max(0, len(varying) - MOST_PARAMETERS),
        diagnoses=diagnosis.by_label(diagnosis.of_trials(run, [e.trial_id for e in board.ranked])),
        advice=ADVICE,
        check=check,
        by_regime=by_regime,
        foresights=flat.foresights(run, board),
        flat_words=flat.MEASURES,
        final_head=final.HEAD,
        final_rows=[final.cells(score) for score in scores],
        ledger=ledger,
        facts=_facts(run),
        figure_names=set(figures),
        figures=_script_safe(figures),
        plotly=Markup(_plotly()),
    )
    return text, said


def _figures(
    run: RunFolder,
    board: Leaderboard,
    judged: Honesty,
    leader: pl.DataFrame | None,
    ics: Mapping[str, IcEstimate],
) -> dict[str, Any]:
    """Return figures by the id of their place on the page; a figure without content is absent."""
    measures = [m for m in ("val_loss", "ic", "crps", "regime_accuracy") if m in run.metrics]
    made: Mapping[str, go.Figure | None] = {
        "leaderboard": plots.leaderboard(board) if board.ranked else None,
        "confidence": search_plots.confidence_set(judged),
        "folds": plots.fold_heat_map(board, run.folds, measures) if len(run.folds) else None,
        "flatness": plots.loss_against_flatness(board),
        "pareto": plots.pareto(board),
        "calibration": None if leader is None else leader_plots.calibrations(leader),
        "ic_horizon": leader_plots.ic_by_horizon(ics),
        "ic_time": None if leader is None or not ics else leader_plots.ic_over_time(leader),
        "parallel": plots.parallel_coordinates(board, run.parameters),
        "history": plots.history(board, run.folds) if len(run.trials) else None,
        "lineage": search_plots.lineage(board, plots.above_median(board, run.folds)),
        "cost": search_plots.cost(board),
    }
    return _as_json(made)


def _parameter_figures(
    board: Leaderboard, judged: Honesty, axes: Mapping[str, Axis], found: Mapping[str, Importance]
) -> dict[str, Any]:
    important = {name: axes[name] for name, value in found.items() if value.share > 0}
    return _as_json(
        {
            "importance": search_plots.importance(found),
            "slices": search_plots.slices(important, board.ranked, judged.members),
            "stability": search_plots.stability(judged, important),
        }
    )


def _as_json(figures: Mapping[str, go.Figure | None]) -> dict[str, Any]:
    return {name: json.loads(figure.to_json()) for name, figure in figures.items() if figure is not None}


def _leader_evidence(run: RunFolder, board: Leaderboard, check: EvidenceCheck) -> pl.DataFrame | None:
    broken = {file.split("/")[1] for file, _ in check.broken}
    if board.leader is None or board.leader.trial_id in broken:
        return None
    try:
        return run.evidence(board.leader.trial_id)
    except ValueError:  # rows cut short: the verdict says that nothing was compared
        return None


def _leader_skill(leader: pl.DataFrame | None) -> tuple[list[skill.Skill] | None, dict[str, IcEstimate]]:
    if leader is None:
        return None, {}
    try:
        return skill.against_baseline(leader), skill.ic_by_horizon(leader)
    except ValueError:  # an infinite prediction: the verdict says that nothing was compared
        return None, {}


def _digits(board: Leaderboard, metric: str) -> int:
    """Return the decimals of a column of the leaderboard: those of its median error, so that numbers line up."""
    errors = [e.errors[metric] for e in board.ranked if metric in e.errors]
    return amounts.decimals(median(errors)) if errors else 4


def _varying(board: Leaderboard, parameters: tuple[str, ...]) -> list[str]:
    """Return the parameters that differ between ranked trials: the others say nothing on a leaderboard."""
    return [name for name in parameters if len({repr(e.parameters.get(name)) for e in board.ranked}) > 1]


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    plan = run.plan
    objectives = ", ".join(f"{o['metric']} ({o['direction']})" for o in plan.objectives)
    took = "" if plan.wall_s is None else f"{plan.wall_s / 60:.1f} minutes"
    facts = [
        ("family", plan.family),
        ("objectives", objectives),
        ("order of the ranking", plan.order),
        ("seed", str(plan.seed)),
        ("commit", plan.commit or "unknown"),
        ("data snapshot", plan.data_snapshot),
        ("started", plan.started_utc),
        ("ended", plan.ended_utc or "not yet"),
        ("wall time", took),
        ("rungs", ", ".join(f"fold {int(fold)} at {share:g}" for fold, share in plan.ladder)),
        ("versions", ", ".join(f"{name} {version}" for name, version in plan.versions.items())),
    ]
    facts += [(name.replace("_", " "), v if isinstance(v, str) else json.dumps(v)) for name, v in plan.more.items()]
    return [(name, value) for name, value in facts if value]


def _script_safe(value: Any) -> Markup:
    """Return JSON that cannot end the script element it stands in, whatever text it holds."""
    text = json.dumps(value, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


@cache
def _plotly() -> str:
    return get_plotlyjs()


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("analysis.reports", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
