"""spaces/mlp_stages.yaml: features vary on the smallest network until they have earned a larger one (SEARCH-13)."""

import pytest

from search.study import Study
from search.trial import Observation, ladder
from tests.spaces.shipped import described, problems, read, refusals

CHAPTER_12_5 = {
    "hidden": ("c", ["32-16", "64-32-16", "128-64-32"], "32-16", {}),
    "feature_stage": ("o", ["10", "20", "30+"], "10", {}),  # 50+ needs series that no shipped data have
    "levels_mode": ("c", ["relative", "raw"], "relative", {}),
    "epochs": ("o", [30, 60], 30, {}),
    "lr": ("f", 1e-5, 1e-3, True, 1e-4, {}),
    "dropout": ("f", 0.0, 0.5, False, 0.1, {}),
}


def test_rows_of_the_chapter():
    parameters = read("mlp_stages")[0].space().parameters
    assert {name: described(parameters[name]) for name in CHAPTER_12_5} == CHAPTER_12_5
    assert parameters["batch_size"].value in (256, 512, 1024)
    assert parameters["label_horizon"].value in (1, 5, 15, 60)


@pytest.mark.requirement("SEARCH-13")
@pytest.mark.requirement("FEAT-SC-10")
@pytest.mark.requirement("MLP-4")
@pytest.mark.parametrize("profile", [None, "laptop"])
@pytest.mark.parametrize(("accuracy", "grows"), [(0.519, False), (0.54, True)])
def test_stages_come_first_and_size_only_after_accuracy(profile, accuracy, grows):
    file, _ = read("mlp_stages", profile)
    study = Study.in_memory(
        space=file.space(),
        ladder=ladder(1),
        n_trials=40,
        optimizer="random",
        stopping="none",
        enqueue=file.search.enqueue,
        unlock=file.search.unlock.model_dump(mode="json"),
    )
    for number in range(40):
        trial = study.next()
        measures = {"val_loss": 0.69, "majority_rate": 0.51}
        measures["directional_accuracy"] = accuracy if number == 12 else 0.50
        seen = Observation(rung=0, fold=0, share=1.0, metrics=measures, n_scored=100, seconds=1.0)
        study.observe(trial.trial_id, seen, study.started(trial.trial_id))
    sizes = [t.config["hidden"] for t in study.trials.values()]
    stages = [t.config["feature_stage"] for t in study.trials.values()]
    assert stages[:3] == ["10", "20", "30+"]
    assert set(sizes[:13]) == {"32-16"}
    assert (set(sizes[13:]) == {"32-16", "64-32-16", "128-64-32"}) is grows
    assert (set(sizes[13:]) == {"32-16"}) is not grows


@pytest.mark.parametrize("profile", [None, "laptop", "smoke"])
def test_all_points_can_be_trained(profile):
    assert problems("mlp_stages", profile) == ((), ())
    assert refusals("mlp_stages", profile) == set()
