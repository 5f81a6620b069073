"""What a sweep came to: rows from run folders, groups, ranking, csv, table and picture."""

import csv
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from dltrain.report.names import labels, short_values
from dltrain.report.overlay import draw_overlay
from dltrain.report.slices import panels
from dltrain.run.console import Console
from dltrain.sweep.summary import RESULTS, Row, grouped, label, ranked, ranking, result, table_rows, write_csv
from dltrain.verbs._sweep_table import sum_up

NONE = dict.fromkeys((*RESULTS, "parameters", "images_per_second", "seconds"))


def row(job: int, value: float | None, column: str = "val_accuracy", status: str = "completed", **settings: str) -> Row:
    texts = {"setting": label(settings), "status": status, "cause": "" if status == "completed" else "on purpose"}
    return {"job": job, "settings": settings, **texts, **NONE, column: value}


def write_run(folder: Path, value: float, *, validated: bool = True, epochs: int = 3, **summary: object) -> None:
    """A run folder whose accuracy ends at a value."""
    folder.mkdir(parents=True)
    splits = ("train", "val") if validated else ("train", "test")
    rows = [
        {
            "split": split,
            "step": 10 * epoch,
            "epoch": float(epoch),
            "loss": 1 / epoch,
            "accuracy": value * epoch / epochs,
        }
        for epoch in range(1, epochs + 1)
        for split in splits
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {"train": None, "val": None, "test": {"loss": 0.5, "accuracy": value - 0.01}, "best": None}
    results |= {"val": {"loss": 0.4, "accuracy": value}} if validated else {}
    (folder / "summary.json").write_text(json.dumps({"status": "completed", "cause": "", **results, **summary}))


def write_sweep(folder: Path, values: dict[str, list[float]], **options: bool) -> list[Row]:
    """A sweep of models over seeds."""
    jobs = [(model, seed, value) for model, each in values.items() for seed, value in enumerate(each, 1)]
    for job, (_, _, value) in enumerate(jobs):
        write_run(folder / str(job), value, **options)
    settings = [{"model": model, "seed": str(seed)} for model, seed, _ in jobs]
    return [result(folder / str(job), job=job, settings=each) for job, each in enumerate(settings)]


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_row_comes_from_the_run_folder(tmp_path):
    best = {"split": "val", "metric": "accuracy", "value": 0.95, "step": 20}
    write_run(tmp_path / "0", 0.9, best=best, parameters=7)
    row = result(tmp_path / "0", job=0, settings={"model": "mlp", "optim.lr": "0.1", "seed": "3"})
    assert row["setting"] == "model=mlp optim.lr=0.1 seed=3"
    assert (row["status"], row["val_accuracy"], row["val_loss"], row["parameters"]) == ("completed", 0.95, 1 / 2, 7)
    assert row["train_loss"] is None


def test_the_ranking_is_by_what_chose_the_weights(tmp_path):
    """The first has the better loss at its best step and the worse one at its end; accuracies say the opposite."""
    for job, (step, loss) in enumerate([(20, 0.3), (30, 0.35)]):
        best = {"split": "val", "metric": "loss", "value": loss, "step": step}
        write_run(tmp_path / str(job), 0.6 + job / 10, best=best)
    rows = [result(tmp_path / str(job), job=job, settings={"model": "ab"[job]}) for job in range(2)]
    assert ranking(rows) == "val_loss"
    assert [row["val_loss"] for row in rows] == [0.3, 0.35]
    assert [row["val_accuracy"] for row in rows] == pytest.approx([0.4, 0.7])
    assert [group.setting for group in ranked(grouped(rows), "val_loss")] == ["model=a", "model=b"]
    rows[1]["chosen_by"] = "val_accuracy"
    assert ranking(rows) == "val_accuracy", "no one number has chosen all"


def test_a_status_that_is_given_goes_before_the_summary(tmp_path):
    write_run(tmp_path / "0", 0.9, status="interrupted", cause="SIGTERM")
    pruned = result(tmp_path / "0", job=0, settings={}, status="pruned", cause="below the median")
    assert (pruned["status"], pruned["cause"], pruned["setting"]) == ("pruned", "below the median", "all")
    own = result(tmp_path / "0", job=0, settings={}, cause="exit code 143")
    assert (own["status"], own["cause"]) == ("interrupted", "SIGTERM")


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_a_job_with_no_summary_or_a_damaged_one_has_failed(tmp_path, text):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    row = result(tmp_path, job=4, settings={"model": "mlp"}, cause="killed by SIGKILL")
    assert (row["job"], row["status"], row["cause"], row["val_loss"]) == (4, "failed", "killed by SIGKILL", None)


def test_the_best_validation_comes_first_and_failures_last():
    rows = [row(0, 0.5, model="a"), row(1, None, status="failed", model="b"), row(2, 0.7, model="c")]
    assert ranking(rows) == "val_accuracy"
    lines = table_rows(ranked(grouped(rows), "val_accuracy"))
    assert [(line["job"], line["rank"]) for line in lines] == [(2, 1), (0, 2), (1, None)]
    rows = [row(0, 1.0, "val_loss", model="a"), row(1, 2.0, "val_loss", model="b")]
    assert ranking(rows) == "val_loss"
    assert [group.setting for group in ranked(grouped(rows), "val_loss")] == ["model=a", "model=b"]


def test_the_test_set_is_never_ranked_by():
    rows = [row(0, 0.5, "test_accuracy", model="a"), row(1, 0.6, "test_accuracy", model="b")]
    assert ranking(rows) == ""
    assert [group.rank for group in ranked(grouped(rows), "")] == [None, None]


def test_a_job_without_validation_is_not_ranked_among_those_with_it():
    rows = [row(0, 0.9, "test_accuracy", model="a"), row(1, 0.6, model="b")]
    assert ranking(rows) == "val_accuracy"
    assert [(group.setting, group.rank) for group in ranked(grouped(rows), "val_accuracy")] == [
        ("model=b", 1),
        ("model=a", None),
    ]


def test_a_group_is_ranked_by_the_mean_of_its_completed_seeds():
    rows = [row(0, 0.9, model="a", seed="1"), row(1, 0.5, model="a", seed="2"), row(2, 0.8, model="b", seed="1")]
    rows.append(row(3, 0.1, status="pruned", model="b", seed="2"))
    lines = table_rows(ranked(grouped(rows), "val_accuracy"))
    assert [(line["job"], line["rank"]) for line in lines] == [(2, 1), (0, 2), (1, 2), (3, None)]


def test_the_csv_has_a_row_a_job_and_a_column_a_key(tmp_path):
    rows = [row(0, 0.9, model="a", seed="1"), row(1, None, status="failed", **{"optim.lr": "0.1"})]
    write_csv(tmp_path / "sweep.csv", table_rows(ranked(grouped(rows), "val_accuracy")))
    first, second = read_csv(tmp_path)
    assert list(first)[:7] == ["rank", "job", "model", "seed", "optim.lr", "setting", "status"]
    assert list(first)[-1] == "cause"
    assert (first["rank"], first["model"], first["seed"], first["optim.lr"], first["val_accuracy"]) == (
        *("1", "a", "1", "", "0.9"),
    )
    assert (second["rank"], second["optim.lr"], second["cause"]) == ("", "0.1", "on purpose")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


def test_seeds_are_grouped_and_compared_in_the_table(tmp_path, capsys):
    rows = write_sweep(tmp_path, {"mlp": [0.80, 0.82, 0.81], "lenet": [0.90, 0.91, 0.92], "deep": [0.89, 0.92, 0.915]})
    sum_up(Console(), tmp_path, rows)
    shown = capsys.readouterr().out
    first, second, third = [line.split() for line in shown.splitlines() if "model=" in line]
    assert first[:6] == ["1", "model=lenet", "3", "0.9100", "±", "0.0100"]
    assert first[-2:] == ["the", "best"]
    assert second[1] == "model=deep"
    assert "not distinguishable at n = 3" in " ".join(second)
    assert third[9:13] == ["+0.1000", "[+0.0752,", "+0.1248]", "better"]
    assert "Holm's over these 2 pairs" in shown
    assert "one seed proves little" not in shown
    assert [row["rank"] for row in read_csv(tmp_path)] == ["1"] * 3 + ["2"] * 3 + ["3"] * 3


def test_one_seed_is_said_to_prove_little(tmp_path, capsys):
    rows = write_sweep(tmp_path, {"mlp": [0.8], "lenet": [0.9]})
    sum_up(Console(), tmp_path, rows)
    shown = capsys.readouterr().out
    assert "one seed proves little: add seed=1,2,3" in shown
    assert "±" not in shown


def test_two_seeds_are_no_statement(tmp_path, capsys):
    sum_up(Console(), tmp_path, write_sweep(tmp_path, {"mlp": [0.8, 0.81], "lenet": [0.9, 0.92]}))
    shown = capsys.readouterr().out
    assert "n = 2: no statement" in shown
    assert "paired t" not in shown


def test_what_was_not_validated_is_shown_and_not_ranked(tmp_path, capsys):
    sum_up(Console(), tmp_path, write_sweep(tmp_path, {"mlp": [0.8, 0.81], "lenet": [0.9, 0.92]}, validated=False))
    shown = capsys.readouterr().out
    assert "Not ranked, as nothing was validated" in shown
    assert "0.9000 ± 0.0141" in shown
    assert (tmp_path / "sweep.png").is_file()


def test_a_sweep_is_summed_up_again_and_with_jobs_that_did_not_complete(tmp_path, capsys):
    rows = write_sweep(tmp_path, {"mlp": [0.80, 0.82, 0.81], "lenet": [0.90, 0.91, 0.92]})
    for failed in rows[:2]:
        failed.update(status="failed", cause="killed by SIGKILL")
    (tmp_path / "1/metrics.jsonl").write_text("{damaged\n")
    sum_up(Console(), tmp_path, rows)
    shown = capsys.readouterr().out
    assert "4 of 6 jobs completed" in shown
    assert "1 of 3" in shown
    assert "model=mlp seed=1: killed by SIGKILL" in shown
    before = (tmp_path / "sweep.csv").read_text(), (tmp_path / "sweep.png").read_bytes()
    for again in rows[:2]:
        again.update(status="completed", cause="")
    sum_up(Console(), tmp_path, rows)
    assert (tmp_path / "sweep.csv").read_text() != before[0]
    assert (tmp_path / "sweep.png").read_bytes() != before[1]


@pytest.mark.parametrize("rows", [[], [row(0, None, status="failed", model="a"), row(1, None, status="failed")]])
def test_a_sweep_in_which_nothing_completed_has_a_table_and_no_picture(tmp_path, capsys, rows):
    sum_up(Console(), tmp_path, rows)
    shown = capsys.readouterr().out
    assert "No job completed" in shown
    assert "picture" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


def test_many_causes_are_not_all_printed_and_pruned_ones_not_at_all(tmp_path, capsys):
    rows = [row(job, None, status="failed", model=str(job)) for job in range(30)]
    sum_up(Console(), tmp_path, [*rows, row(30, None, status="pruned", model="x")])
    shown = capsys.readouterr().out
    assert shown.count(": on purpose") == 20
    assert "and 10 more" in shown


@pytest.mark.parametrize("count", [1, 2, 12])
def test_the_picture_is_drawn_for_few_and_many_settings(tmp_path, count):
    """A warning, as of a layout that does not fit, is an error here."""
    rows = write_sweep(tmp_path, {f"{'long-name-of-a-model-' * 4}{job}": [0.5 + job / 99] * 2 for job in range(count)})
    sum_up(Console(), tmp_path, rows)
    height, width, _ = imread(tmp_path / "sweep.png").shape
    assert (width > 2 * height) == (count == 1), "one setting has curves alone"
    assert "<svg" in (tmp_path / "sweep.svg").read_text()


@pytest.mark.parametrize(("coloured", "scale", "top"), [(1, "linear", 3.0), (2, "log", 1e6)])
def test_a_run_that_went_astray_does_not_press_the_others_flat(coloured, scale, top):
    def record(loss: float) -> list[Row]:
        return [{"split": "val", "epoch": float(epoch), "loss": loss * epoch} for epoch in (1, 2, 3)]

    figure = Figure()
    draw_overlay(figure, [("1. good", [record(1.0)] * 9), ("astray", [record(1e6)])], coloured=coloured)
    (axis,) = figure.axes
    assert axis.get_yscale() == scale
    assert top < axis.get_ylim()[1] < 10 * top


def test_the_mean_of_seeds_is_drawn_where_all_have_been():
    def record(*losses: float) -> list[Row]:
        return [{"split": "val", "epoch": float(epoch), "loss": loss} for epoch, loss in enumerate(losses, 1)]

    figure = Figure()
    draw_overlay(figure, [("1. a", [record(3.0, 2.0, 1.0), record(5.0, 4.0)])], coloured=1)
    *thin, thick = figure.axes[0].lines
    assert len(thin) >= 2
    assert (list(thick.get_xdata()), list(thick.get_ydata())) == ([1.0, 2.0], [4.0, 3.0])


def test_what_is_drawn_below_the_curves():
    def drawn(*settings: dict[str, str]) -> list[str]:
        found = panels([(each, place / 10) for place, each in enumerate(settings)])
        return [panel.func.__name__ + panel.keywords.get("key", "") for panel in found]

    grid = [{"model": model, "lr": lr} for model in "ab" for lr in ("0.1", "0.2")]
    assert drawn(*grid) == ["_slicemodel", "_slicelr", "_heat_map"]
    assert drawn(*[{"lr": str(x), "decay": str(x * x)} for x in range(1, 6)]) == ["_slicelr", "_slicedecay"]
    assert len(drawn(*[{key: str(x) for key in "abcdef"} for x in range(3)])) == 4
    assert drawn({}, {}) == []


def test_names_are_short_and_still_tell_settings_apart():
    settings = [{"optim.lr": "0.1", "data.root": f"/a/very/long/way/to/{name}"} for name in ("one", "two")]
    assert labels(settings) == ["lr=0.1 root=…/one", "lr=0.1 root=…/two"]
    assert labels([{"a.size": "1", "b.size": "2"}, {}]) == ["a.size=1 b.size=2", "all"]
    assert short_values(["0.0282493451"], 9) == {"0.0282493451": "0.02825"}
    assert short_values(["convolutional-network-7"], 9) == {"convolutional-network-7": "co…work-7"}
