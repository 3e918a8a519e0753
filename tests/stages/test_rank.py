"""`rank` from evaluate's and bench's files to the rank table."""

from __future__ import annotations

import csv
import json

import pytest

from flarekd.errors import InputError, UsageError
from flarekd.labels import LABELS
from flarekd.metrics import ClassScore
from flarekd.report.score_files import write_scores
from flarekd.stages.rank import rank


def model(folder, name, **cases):
    """A model's folder with (organ DSC, tumour DSC) of cases."""
    scores = {
        case: [ClassScore(label.id, tumor if label.id == 14 else organs, 0.5) for label in LABELS]
        for case, (organs, tumor) in cases.items()
    }
    write_scores(folder / name, scores)
    return f"{name}={folder / name}"


def benched(folder, name, case, *runs):
    """A bench of a case: (status, seconds, area above 4 GB or None for no GPU) a run."""
    entries = [
        {"status": s, "seconds": t, "gpu": None if a is None else {"area_over_mb_s": a}}
        for s, t, a in runs
    ]
    path = folder / name / "bench" / case / "bench.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"runs": entries}), encoding="utf-8")


def ranks_of(folder, metric):
    with (folder / "out" / "ranks.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == metric]
    return {(row["model"], row["case"]): int(row["rank"]) for row in rows}


def test_scores_alone_are_ranked_case_by_case(tmp_path, capsys):
    models = [
        model(tmp_path, "one", a=(0.9, 0.2), b=(0.8, 0.2)),
        model(tmp_path, "two", a=(0.8, 0.3), b=(0.9, 0.1)),
        model(tmp_path, "three", a=(0.7, 0.4)),  # b failed
    ]
    table = rank(models, tmp_path / "out")
    assert ranks_of(tmp_path, "organs_dsc") == {
        ("one", "a"): 1, ("two", "a"): 2, ("three", "a"): 3,
        ("one", "b"): 2, ("two", "b"): 1, ("three", "b"): 3,
    }  # fmt: skip
    assert ranks_of(tmp_path, "tumor_dsc")["three", "a"] == 1
    assert ranks_of(tmp_path, "organs_nsd") == {
        ("one", "a"): 1, ("two", "a"): 1, ("three", "a"): 1,
        ("one", "b"): 1, ("two", "b"): 1, ("three", "b"): 3,
    }  # fmt: skip
    # one: organs 1, 2; tumour 3, 1; two: organs 2, 1; tumour 2, 2; both 1 by every NSD
    assert [(one.model, one.place) for one in table] == [("one", 1), ("two", 1), ("three", 3)]
    assert table[0].rank == pytest.approx((1 + 2 + 3 + 1 + 4) / 8)
    facts = json.loads((tmp_path / "out" / "ranks.json").read_text())
    assert facts["metrics"] == ["organs_dsc", "organs_nsd", "tumor_dsc", "tumor_nsd"]
    assert facts["models"]["three"]["ranks"]["organs_dsc"] == 3
    said = capsys.readouterr()
    assert "85.00 · 1.50" in said.out
    assert "not ranked by time, s: no bench has it of one, two, three" in said.err


def test_time_and_gpu_memory_count_above_their_tolerances(tmp_path, capsys):
    models = [model(tmp_path, name, a=(0.9, 0.2), b=(0.9, 0.2)) for name in ("one", "two", "three")]
    benched(tmp_path, "one", "a", (0, 5.0, 0.0))
    benched(tmp_path, "one", "b", (0, 20.0, 10.0), (0, 22.0, 30.0), (0, 21.0, 20.0))
    benched(tmp_path, "two", "a", (0, 14.0, 500.0))
    benched(tmp_path, "two", "b", (0, 21.5, 0.0), (137, 1.0, 0.0))
    benched(tmp_path, "three", "a", (0, 16.0, 0.0))
    benched(tmp_path, "three", "b", (137, 1.0, 0.0))
    table = rank(models, tmp_path / "out")
    assert ranks_of(tmp_path, "seconds") == {
        ("one", "a"): 1, ("two", "a"): 1, ("three", "a"): 3,
        # the middle of three runs; a run that failed says nothing of the others; none did not
        ("one", "b"): 1, ("two", "b"): 2, ("three", "b"): 3,
    }  # fmt: skip
    area = ranks_of(tmp_path, "gpu_area_over_mb_s")
    assert [area[name, "a"] for name in ("one", "two", "three")] == [1, 3, 1]
    assert [area[name, "b"] for name in ("one", "two", "three")] == [2, 1, 3]
    assert table[0].model == "one"
    assert json.loads((tmp_path / "out" / "ranks.json").read_text())["allowed"] == {"seconds": 15.0}


def test_without_a_gpu_only_time_is_ranked(tmp_path, capsys):
    models = [model(tmp_path, name, a=(0.9, 0.2)) for name in ("one", "two")]
    for name, area in (("one", None), ("two", 3.0)):
        benched(tmp_path, name, "a", (0, 20.0, area))
    rank(models, tmp_path / "out")
    assert ranks_of(tmp_path, "seconds") == {("one", "a"): 1, ("two", "a"): 1}
    assert ranks_of(tmp_path, "gpu_area_over_mb_s") == {}
    assert "no bench has it of one" in capsys.readouterr().err


def test_what_cannot_be_ranked_is_refused_and_nothing_is_written(tmp_path):
    one, two = (model(tmp_path, name, a=(0.9, 0.2)) for name in ("one", "two"))
    with pytest.raises(UsageError, match="1 models cannot be ranked"):
        rank([one], tmp_path / "out")
    with pytest.raises(UsageError, match="'two' is no model"):
        rank([one, "two"], tmp_path / "out")
    with pytest.raises(UsageError, match="of that name"):
        rank([one, one], tmp_path / "out")
    with pytest.raises(InputError, match="cannot read scores"):
        rank([one, f"none={tmp_path / 'none'}"], tmp_path / "out")
    with pytest.raises(InputError, match="no case is scored in all of one, other"):
        rank([one, model(tmp_path, "other", b=(0.9, 0.2))], tmp_path / "out")
    for name, protocol in (("one", "flare23"), ("two", "corrected")):
        (tmp_path / name / "scores.json").write_text(json.dumps({"protocol": protocol}))
    with pytest.raises(InputError, match="one by flare23, two by corrected"):
        rank([one, two], tmp_path / "out")
    (tmp_path / "two" / "scores.json").unlink()
    (tmp_path / "two" / "bench" / "a").mkdir(parents=True)
    (tmp_path / "two" / "bench" / "a" / "bench.json").write_text("[]")
    with pytest.raises(InputError, match=r"bench\.json: is no file of bench"):
        rank([one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_cases_that_not_every_model_was_benched_in_do_not_count_by_time(tmp_path, capsys):
    cases = {f"case_{number}": (0.9, 0.2) for number in range(10)}
    models = [model(tmp_path, "one", **cases), model(tmp_path, "two", **cases)]
    benched(tmp_path, "one", "case_0", (0, 20.0, None))
    for case in cases:
        benched(tmp_path, "two", case, (0, 60.0, None))
    table = rank(models, tmp_path / "out")
    assert [(one.model, one.ranks["seconds"]) for one in table] == [("one", 1.0), ("two", 2.0)]
    assert ranks_of(tmp_path, "seconds") == {("one", "case_0"): 1, ("two", "case_0"): 2}
    told = " ".join(capsys.readouterr().err.split())
    assert "over 1 of 10 cases: the others lack a bench of some model" in told
    facts = json.loads((tmp_path / "out" / "ranks.json").read_text(encoding="utf-8"))
    assert facts["cases_by_metric"]["seconds"] == 1
    assert facts["cases_by_metric"]["organs_dsc"] == 10


def test_a_case_that_a_model_failed_in_has_its_last_rank_by_time_too(tmp_path):
    models = [
        model(tmp_path, "one", a=(0.9, 0.2)),  # b failed
        model(tmp_path, "two", a=(0.9, 0.2), b=(0.9, 0.2)),
    ]
    for name, case in (("one", "a"), ("two", "a"), ("two", "b")):
        benched(tmp_path, name, case, (0, 60.0, None))
    rank(models, tmp_path / "out")
    assert ranks_of(tmp_path, "seconds")["one", "b"] == 2


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"runs": [{"status": 0, "gpu": null, "seconds": %s}]}' % ("9" * 400),
        '{"runs": [{"status": 0, "gpu": [1], "seconds": 1}]}',
    ],
)
def test_a_bench_that_makes_no_sense_is_refused(tmp_path, text):
    models = [model(tmp_path, name, a=(0.9, 0.2)) for name in ("one", "two")]
    benched(tmp_path, "one", "a", (0, 20.0, None))
    (tmp_path / "one" / "bench" / "a" / "bench.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"bench\.json: is no file of bench"):
        rank(models, tmp_path / "out")
