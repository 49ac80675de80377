"""The report says what the files of the run say: the right files, and no number of its own."""

import json
import os
from dataclasses import replace

import pytest
from fake_runs import ENVIRONMENT, NAMES, an_epoch, an_evaluation

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import RunFolderError
from rpat_cli.evaluation.statistics import wilson_interval
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.write import write_report


@pytest.fixture
def run(make_run):
    """Three epochs, the second the best, both checkpoints evaluated."""
    run = make_run(epochs=3).save_last(3)
    run.train([an_epoch(1, 0.6, 0.3), an_epoch(2, 0.7, 0.5), an_epoch(3, 0.8, 0.4)])
    run.evaluate(
        "best", 2, an_evaluation(80, {"pgd-20": 60, "autoattack": 40}, flags=("odd gradients",))
    )
    run.evaluate("last", 3, an_evaluation(90, {"pgd-20": 55, "autoattack": 30}))
    return run


def accuracies(report):
    return {
        (row.checkpoint.name, label): f.accuracy.value
        for row in report.rows
        for label, f in row.results.items()
    }


def test_accuracies_are_those_put_in(run):
    report = build_report(run.folder)
    assert accuracies(report) == {
        ("best", "clean"): 0.8,
        ("best", "pgd-20"): 0.6,
        ("best", "autoattack"): 0.4,
        ("last", "clean"): 0.9,
        ("last", "pgd-20"): 0.55,
        ("last", "autoattack"): 0.3,
    }
    assert report.labels == ("clean", "pgd-20", "autoattack")
    assert (report.best_epoch, [c.title for c in report.checkpoints]) == (
        2,
        ["best (epoch 2)", "last (epoch 3)"],
    )
    assert (report.seconds, report.forward, report.backward) == (30.0, 660, 600)
    assert report.environment == ENVIRONMENT
    assert report.device == "cpu"
    assert report.class_names == NAMES
    assert report.remarks == ("autoattack on best: odd gradients",)


def test_per_class_and_stages(run):
    best = build_report(run.folder).rows[0].results["autoattack"]
    assert [accuracy.correct for accuracy in best.per_class] == [
        4
    ] * 10  # the first 40 of 100, dealt to ten classes
    assert [accuracy.n for accuracy in best.per_class] == [10] * 10
    assert sum(stage.broken for stage in best.stages) == 80 - 40
    assert [stage.name for stage in best.stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]


def test_mean_and_nrr(run):
    best, last = build_report(run.folder).rows
    assert best.mean == pytest.approx(0.6)
    assert best.nrr == pytest.approx(2 * 0.8 * 0.4 / 1.2)
    assert last.nrr == pytest.approx(0.45)


def test_mean_needs_the_same_images(run):
    run.evaluate("best", 2, an_evaluation(30, {"autoattack": 10}, n=50), "13:00:00")
    run.evaluate("best", 2, an_evaluation(80, {"pgd-20": 60}), "14:00:00")
    report = build_report(run.folder)
    assert report.rows[0].mean is None
    assert (
        report.remarks[-1] == "the accuracies are not all over the same number of images: 50, 100"
    )


def test_newest_evaluation_wins_attack_by_attack(run):
    newer = an_evaluation(81, {"pgd-20": 59})
    older = an_evaluation(10, {"pgd-20": 5, "fgsm": 70})
    run.evaluate("best", 2, newer, "13:00:00")
    run.evaluate("best", 2, older, "11:00:00")  # written later, measured earlier
    found = accuracies(build_report(run.folder))
    assert found["best", "clean"] == 0.81
    assert found["best", "pgd-20"] == 0.59
    assert found["best", "fgsm"] == 0.7
    assert found["best", "autoattack"] == 0.4


def test_same_second_is_told_apart_by_the_file_system(run):
    first = run.evaluate("best", 2, an_evaluation(70, {"pgd-20": 50}), "13:00:00")
    second = run.evaluate("best", 2, an_evaluation(71, {"pgd-20": 51}), "13:00:00")
    os.utime(first, ns=(1, 1))
    os.utime(second, ns=(2, 2))
    assert accuracies(build_report(run.folder))["best", "pgd-20"] == 0.51


def test_best_and_last_of_the_same_epoch_share(make_run):
    run = make_run(epochs=1).save_last(1).train([an_epoch(1, 0.6, 0.3)])
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}))
    report = build_report(run.folder)
    assert accuracies(report)["last", "pgd-20"] == accuracies(report)["best", "pgd-20"] == 0.6
    assert [row.checkpoint.same_weights for row in report.rows] == [False, True]


def test_a_run_stopped_within_an_epoch_shares_nothing(make_run):
    run = make_run(epochs=4).save_last(1, step=5).train([an_epoch(1, 0.6, 0.3)])
    run.evaluate("best", 1, an_evaluation(80, {"pgd-20": 60}))
    report = build_report(run.folder)
    assert [row.checkpoint.name for row in report.rows] == ["best"]
    assert report.remarks == ("the training is not complete: 1 of 4 epochs",)


def test_replaced_weights_and_other_data_do_not_count(run):
    run.evaluate("best", 1, an_evaluation(1, {"pgd-20": 1}), "13:00:00")
    run.evaluate("best", 2, an_evaluation(2, {"pgd-20": 2}), "14:00:00", data="mnist")
    report = build_report(run.folder)
    assert accuracies(report)["best", "pgd-20"] == 0.6
    assert "epoch 1, which further training has replaced" in report.remarks[0]
    assert "other data (mnist)" in report.remarks[1]


def test_a_part_of_the_test_images_does_not_replace_all_of_them(run):
    run.evaluate("best", 2, replace(an_evaluation(50, {"pgd-20": 9}, n=50), limit=50), "15:00:00")
    report = build_report(run.folder)
    assert accuracies(report)["best", "pgd-20"] == 0.6
    run.evaluate("best", 2, replace(an_evaluation(20, {"pgd-20": 9}, n=20), limit=20), "16:00:00")
    [remark] = [text for text in build_report(run.folder).remarks if "test images" in text]
    assert remark.startswith("accuracies on some of the test images are not part of this report")
    assert "(50)" in remark
    assert "(20)" in remark


def test_another_threat_gets_its_own_rows(run):
    run.evaluate("best", 2, an_evaluation(80, {"pgd-20": 20}, threat=Threat("L2", 0.5)), "13:00:00")
    report = build_report(run.folder)
    found = [
        (r.checkpoint.name, r.threat.norm, r.results["pgd-20"].accuracy.value) for r in report.rows
    ]
    assert found == [("best", "Linf", 0.6), ("last", "Linf", 0.55), ("best", "L2", 0.2)]
    assert report.rows[2].results["clean"].accuracy.value == 0.8
    assert report.rows[2].mean is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"created": "yesterday"}', '{"created": 3}']
)
def test_a_damaged_evaluation_is_named_and_left_out(run, text):
    (run.folder.evals / "broken.json").write_text(text, encoding="utf-8")
    report = write_report(run.folder)
    assert accuracies(report)["best", "pgd-20"] == 0.6
    assert report.remarks[0].startswith("evals/broken.json is damaged and was left out (")
    assert "broken.json" in run.folder.html.read_text(encoding="utf-8")


def test_an_evaluation_with_a_damaged_part_is_named_and_left_out(run):
    path = run.evaluate("best", 2, an_evaluation(1, {"pgd-20": 1}), "15:00:00")
    record = json.loads(path.read_text())
    record["clean_predicted"] = "none"
    path.write_text(json.dumps(record))
    report = build_report(run.folder)
    assert accuracies(report)["best", "pgd-20"] == 0.6
    assert report.remarks[0].startswith(f"evals/{path.name} is damaged and was left out (")


def test_a_damaged_checkpoint_costs_the_environment_only(run):
    run.folder.checkpoint("last").write_bytes(b"no checkpoint")
    report = build_report(run.folder)
    assert report.environment == ENVIRONMENT  # of the newest evaluation
    assert report.class_names == ()
    assert "checkpoints/last.pt cannot be read" in report.remarks[0]


def test_best_epoch_rank_and_ties(make_run):
    records = [
        an_epoch(1),
        an_epoch(2, 0.7, 0.5),
        an_epoch(3, 0.8, 0.5),
        an_epoch(4, 0.8, 0.5),
        an_epoch(5),
    ]
    assert build_report(make_run(epochs=5).train(records).folder).best_epoch == 3


def test_an_empty_run(make_run):
    report = write_report(make_run(epochs=3).folder)
    assert (report.rows, report.best_epoch, report.checkpoints, report.forward) == (
        (),
        None,
        (),
        None,
    )
    assert report.remarks == ("the training is not complete: 0 of 3 epochs",)


def test_passes_are_unknown_rather_than_short(make_run):
    run = make_run(epochs=2).train([an_epoch(1), an_epoch(2)])
    lines = [
        json.loads(line) for line in run.folder.metrics.read_text(encoding="utf-8").splitlines()
    ]
    del lines[0]["forward"]
    run.folder.metrics.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    report = build_report(run.folder)
    assert (report.forward, report.backward) == (None, 400)


def test_json_holds_fractions_and_everything_else(run):
    report = write_report(run.folder)
    content = json.loads(run.folder.report.read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(report.to_dict()))
    first = next(
        item
        for item in content["results"]
        if (item["checkpoint"], item["label"]) == ("best", "autoattack")
    )
    assert first["acc"] == 0.4
    assert first["interval_95"] == list(wilson_interval(40, 100))
    assert first["threat"] == {"norm": "Linf", "eps": 0.1}
    assert first["flags"] == ["odd gradients"]
    assert first["per_class"][0] == {"correct": 4, "n": 10}
    assert first["worst_class"] == {
        "class": 0,
        "robust_acc": 0.4,
        "interval_95": list(wilson_interval(4, 10)),
        "n": 10,
    }
    # 40 of 100 are right with confidence 0.9, the others wrong with 0.5.
    assert first["ece"] == pytest.approx(0.4 * 0.1 + 0.6 * 0.5)
    assert first["stages"][0]["steps"] is None
    assert content["scores"][0]["strongest"] == "autoattack"
    assert content["scores"][0]["confusion"][0] == [4, 6, *[0] * 8]
    assert content["scores"][0]["mean"] == pytest.approx(0.6)
    assert content["training"]["best_epoch"] == 2
    assert [record["epoch"] for record in content["training"]["records"]] == [1, 2, 3]
    assert content["recipe"]["model"] == "small-cnn"


def test_written_whole_or_not_at_all(run, monkeypatch):
    write_report(run.folder)
    before = run.folder.report.read_text(encoding="utf-8")
    run.evaluate("best", 2, an_evaluation(1, {"pgd-20": 1}), "15:00:00")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(RunFolderError, match=r"report\.json: No space left"):
        write_report(run.folder)
    assert run.folder.report.read_text(encoding="utf-8") == before
    assert sorted(p.name for p in run.folder.path.glob("report*")) == ["report.html", "report.json"]
