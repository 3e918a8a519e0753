"""One training from files to a model file: begun, found done, resumed or refused."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from flarekd import config
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import read_labels, write_labels, write_volume
from flarekd.imaging.intensity import FLARE22_STATISTICS
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.modelfile import ModelCard, read_card, read_weights, save_model
from flarekd.student.network import StudentUNet
from flarekd.student.windows import predict_logits
from flarekd.training import course
from flarekd.training.checkpoint import NAME as CHECKPOINT
from flarekd.training.checkpoint import PREVIOUS
from flarekd.training.initial import open_initial
from flarekd.training.log import LOG, read_log
from flarekd.training.plan import Plan
from flarekd.training.prepare import Grid, Source
from flarekd.training.session import run

COS, SIN = np.cos(0.28), np.sin(0.28)
GEOMETRY = Geometry(
    (28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
)
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
SETTINGS = config.load(
    config.builtin("quick"),
    [
        "student.epochs=2",
        "student.iterations=2",
        "student.batch=1",
        "student.patch=[8, 16, 16]",
        "student.oversize=[8, 16, 16]",
        "student.channels=[2, 2, 4, 4]",
        "student.class_weights=[]",
        "student.window=null",
        "student.checkpoint_minutes=0",
    ],
).student


pytestmark = pytest.mark.usefixtures("one_processor")


class Screen:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    @contextmanager
    def progress(self, title):
        yield lambda *state: self.told.append(f"{title} {state[0]}/{state[1]}")

    def info(self, text):
        self.told.append(text)

    def warn(self, text):
        self.told.append(f"note: {text}")


def segment(network, volume):
    found = predict_logits(network, volume, (8, 16, 16))
    return found.logits.max(0).indices.to(torch.uint8).numpy()


def plan(missing=(), seed=4, initial=None, **changes):
    return Plan(
        role="student",
        network={"classes": 3, "channels": (2, 2, 4, 4), "strides": STRIDES},
        build=StudentUNet,
        settings=SETTINGS.model_copy(update=changes),
        grid=Grid((0.0, 0.0, 0.0), (8, 16, 16), tumor_only=False),
        segment=segment,
        labels=("background", "liver", "tumor"),
        label_ids=(0, 1, 2),
        inference={"step": 0.5},
        seed=seed,
        config=f"changes: {sorted(changes.items())}\n",
        missing=dict(missing),
        initial=initial,
    )


class Run:
    """A run folder and the cases to train on."""

    def __init__(self, path):
        self.folder, self.pictures, self.screen = path / "run", [], Screen()
        self.sources = [self._source(path / "data", f"case_{name}") for name in "ab"]

    def _source(self, folder, case):
        labels = np.zeros(GEOMETRY.shape_zyx, np.uint8)
        labels[2:9, 5:17, 6:20] = 1
        labels[4:8, 8:14, 10:17] = 2
        noise = np.random.default_rng(len(case)).normal(0, 20, labels.shape)
        paths = folder / f"{case}_0000.nii.gz", folder / f"{case}.nii.gz"
        write_volume(paths[0], Volume((noise + 60 * labels).astype(np.int16), GEOMETRY))
        write_labels(paths[1], LabelMap(labels, GEOMETRY))
        return Source(case, *paths)

    def train(self, how, resume="never", tensorboard=False):
        def draw(records, path):
            self.pictures.append([record["epoch"] for record in records])
            path.write_text("a picture")

        self.screen = Screen()
        device = torch.device("cpu")
        return run(
            how, self.sources, self.folder, device, resume=resume, screen=self.screen, draw=draw,
            tensorboard=tensorboard,
        )  # fmt: skip

    def state(self):
        """What lies in the run folder, and since when."""
        return {
            path.relative_to(self.folder).as_posix(): path.stat().st_mtime_ns
            for path in self.folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def session(tmp_path):
    return Run(tmp_path)


def test_a_run_folder_holds_all_of_a_run(session):
    path = session.train(plan())
    assert path == session.folder / "model.safetensors"
    assert set(session.state()) == {
        "config.yaml",
        "store/case_a.b2nd",
        "store/case_b.b2nd",
        "log.jsonl",
        "curves.png",
        "checkpoint.safetensors",
        "checkpoint-previous.safetensors",
        "model.safetensors",
    }
    assert (session.folder / "config.yaml").read_text() == "changes: []\n"
    records = read_log(session.folder / LOG)
    assert [record["iteration"] for record in records] == [2, 4]
    assert session.pictures == [[1], [1, 2]]
    assert session.screen.told[-1] == "Training the student 4/4"


@pytest.mark.parametrize(("seconds", "drawn"), [(60, [1, 4]), (0, [1, 2, 3, 4])])
def test_curves_are_drawn_first_and_last_and_once_a_minute(session, monkeypatch, seconds, drawn):
    monkeypatch.setattr(course, "PICTURE_S", seconds)
    session.train(plan(epochs=4, iterations=1))
    assert [epochs[-1] for epochs in session.pictures] == drawn


def test_the_card_says_what_was_trained_and_on_what(session):
    path = session.train(plan())
    card = read_card(path)
    assert (card.role, card.labels, card.label_ids) == (
        "student",
        ("background", "liver", "tumor"),
        (0, 1, 2),
    )
    assert (card.spacing, card.patch) == ((0.0, 0.0, 0.0), (8, 16, 16))
    assert card.inference == {"step": 0.5}
    # too few voxels of foreground to say anything of intensities
    assert card.statistics == FLARE22_STATISTICS
    assert (card.training["cases"], card.training["iterations"]) == (2, 4)
    last = read_log(session.folder / LOG)[-1]
    assert (card.training["loss"], card.training["dsc"]) == (last["loss"], last["dsc"])
    assert len(card.trained_on) == 64
    StudentUNet(**card.network).load_state_dict(read_weights(path))


@pytest.mark.parametrize("resume", ["never", "must", "may"])
def test_a_second_run_finds_it_done(session, resume):
    session.train(plan())
    before = session.state()
    path = session.train(plan(), resume)
    assert session.state() == before
    assert session.screen.told[-1] == f"{path} is up to date"
    assert len(session.pictures) == 2


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(session):
    first = read_weights(session.train(plan()))
    (session.folder / "model.safetensors").unlink()
    again = read_weights(session.train(plan()))
    other = read_weights(session.train(plan(seed=5)))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_how_often_checkpoints_are_written_is_no_other_run(session):
    session.train(plan())
    before = session.state()
    session.train(plan(checkpoint_minutes=7.0))
    assert session.state() == before


@pytest.mark.parametrize("resume", ["never", "may"])
def test_other_settings_train_anew_and_say_that_the_checkpoint_is_not_used(session, resume):
    first = read_card(session.train(plan()))
    second = read_card(session.train(plan(epochs=1), resume))
    assert any(line.startswith("note: starting anew") for line in session.screen.told)
    assert (first.training["iterations"], second.training["iterations"]) == (4, 2)
    assert [record["iteration"] for record in read_log(session.folder / LOG)] == [2]
    assert (session.folder / "config.yaml").read_text() == "changes: [('epochs', 1)]\n"


def test_a_held_out_case_judges_each_epoch_and_the_best_model_is_kept(session):
    path = session.train(plan(fold=0, validation=2, volumes_every=1), tensorboard=True)
    records = read_log(session.folder / LOG)
    for record in records:
        assert len(record["validation_dsc"]) == len(record["volumes_dsc"]) == 2
    card, best = read_card(path), read_card(session.folder / "model-best.safetensors")
    assert card.training["cases"] == best.training["cases"] == 1
    assert card.training["volumes_dsc"] == records[-1]["volumes_dsc"]
    kept = [record for record in records if record["iteration"] == best.training["iterations"]]
    assert best.training["validation_dsc"] == kept[0]["validation_dsc"]
    assert list((session.folder / "tensorboard").glob("events.*"))
    other = read_weights(session.train(plan(fold=1, validation=2)))
    whole = read_weights(session.train(plan(fold=4)))  # a fold without a case holds nothing out
    assert not all(torch.equal(value, whole[name]) for name, value in other.items())
    assert not (session.folder / "model-best.safetensors").exists()


def test_another_label_trains_anew(session):
    first = read_card(session.train(plan()))
    time.sleep(0.01)
    array = np.ones(GEOMETRY.shape_zyx, np.uint8)
    write_labels(session.sources[0].labels, LabelMap(array, GEOMETRY))
    second = read_card(session.train(plan()))
    assert first.trained_on != second.trained_on


def test_a_label_saved_again_with_the_same_content_trains_nothing(session):
    path = session.train(plan())
    before = path.stat().st_mtime_ns
    time.sleep(0.01)
    source = session.sources[0].labels
    source.write_bytes(source.read_bytes())
    assert session.train(plan()).stat().st_mtime_ns == before


def interrupted(session, **changes):
    """A run stopped after its first epoch: the checkpoint is there, the model not."""
    model = session.train(plan(**changes))
    whole = read_weights(model)
    for name in ("model.safetensors", CHECKPOINT, LOG):
        (session.folder / name).unlink()

    class Stopped(Screen):
        @contextmanager
        def progress(self, title):
            def advance(done, total, note):
                if title.startswith("Training the") and done == 3:
                    raise KeyboardInterrupt

            yield advance

    with pytest.raises(KeyboardInterrupt):
        run(
            plan(**changes),
            session.sources,
            session.folder,
            torch.device("cpu"),
            resume="never",
            screen=Stopped(),
            draw=lambda *_: None,
        )
    assert not model.exists()
    return whole


@pytest.mark.parametrize("resume", ["must", "may"])
def test_an_interrupted_run_goes_on_to_the_same_weights(session, resume):
    whole = interrupted(session)
    weights = read_weights(session.train(plan(), resume))
    assert "continuing at iteration 2 of 4" in session.screen.told
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())
    assert [record["iteration"] for record in read_log(session.folder / LOG)] == [2, 4]


def test_without_resume_an_interrupted_run_starts_anew(session):
    whole = interrupted(session)
    weights = read_weights(session.train(plan()))
    assert any(line.startswith("note: starting anew") for line in session.screen.told)
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())


def partly(session, *annotated):
    """The sources with the classes that each vouches for."""
    pairs = zip(session.sources, annotated, strict=True)
    session.sources = [replace(source, annotated=frozenset(ids)) for source, ids in pairs]


def test_an_interrupted_run_on_partial_labels_goes_on_to_the_same_weights(session):
    partly(session, {1}, {2})
    whole = interrupted(session)
    weights = read_weights(session.train(plan(), "must"))
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())
    assert None not in read_log(session.folder / LOG)[-1]["dsc"][:1]


def test_a_class_that_is_vouched_for_and_not_there_makes_another_training_of_it(session):
    """The store is the same then, and the loss is not."""
    partly(session, {1}, {1, 2})
    first = session.train(plan())
    card, weights = read_card(first), read_weights(first)
    assert read_card(session.train(plan())).training == card.training
    assert session.screen.told[-1].endswith("is up to date")
    for source in session.sources:
        labels = read_labels(source.labels)
        labels.array[labels.array == 2] = 0
        write_labels(source.labels, labels)
    with_none = read_card(session.train(plan()))
    partly(session, {1}, {1})
    (session.folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="comes from other settings or other data"):
        session.train(plan(), "must")
    other = session.train(plan())
    assert read_card(other).trained_on == with_none.trained_on
    assert not all(torch.equal(value, weights[k]) for k, value in read_weights(other).items())


def test_held_out_cases_of_partial_labels_judge_what_they_vouch_for(session):
    partly(session, {1}, {2})
    session.train(plan(fold=0, validation=2, volumes_every=1))
    last = read_log(session.folder / LOG)[-1]
    # case_a is held out and has the liver alone, case_b trains and has the tumour alone
    assert [value is None for value in last["validation_dsc"]] == [False, True]
    assert [value is None for value in last["volumes_dsc"]] == [False, True]


def initial(path, seed, classes=15, strides=STRIDES):
    """Another model to start from, and its weights."""
    torch.manual_seed(seed)
    weights = StudentUNet(classes, (2, 2, 4, 4), strides).state_dict()
    card = ModelCard(
        role="student",
        network={},
        labels=("background", "liver"),
        label_ids=(0, 1),
        spacing=(4.0, 1.2, 1.2),
        patch=(8, 16, 16),
        intensity=(-110.0, 190.0, 40.0, 70.0),
    )
    save_model(path, weights, card)
    return open_initial(path), weights


def test_a_run_starts_from_another_model_and_says_what_it_took(session, tmp_path):
    start, given = initial(tmp_path / "a.safetensors", 11)
    found = read_weights(session.train(plan(epochs=0, initial=start)))
    own = read_weights(session.train(plan(epochs=0)))
    heads = {f"heads.{level}.weight" for level in range(3)}
    assert {name for name in found if torch.equal(found[name], own[name])} >= heads
    assert all(torch.equal(found[name], given[name]) for name in found.keys() - heads)
    assert not torch.equal(found["up.0.weight"], own["up.0.weight"])
    session.train(plan(epochs=0, initial=start))
    assert f"59 of 62 tensors start from {tmp_path / 'a.safetensors'}" in session.screen.told
    assert any("heads.0.weight, heads.1.weight, heads.2" in told for told in session.screen.told)


def test_the_average_of_weights_starts_from_the_other_model_too(session, tmp_path):
    start, given = initial(tmp_path / "a.safetensors", 11)
    averaged = SETTINGS.optimizer.model_copy(update={"ema": 0.99})
    found = read_weights(session.train(plan(epochs=0, optimizer=averaged, initial=start)))
    assert torch.equal(found["up.0.weight"], given["up.0.weight"])


def test_another_model_to_start_from_is_another_run(session, tmp_path):
    first, _ = initial(tmp_path / "a.safetensors", 11)
    path = session.train(plan(initial=first))
    found = read_weights(path)
    assert read_card(path).training["initial"] == first.sha256
    session.train(plan(initial=first))
    assert session.screen.told[-1] == f"{path} is up to date"
    # the same content under another name is the same start
    initial(tmp_path / "copy.safetensors", 11)
    session.train(plan(initial=open_initial(tmp_path / "copy.safetensors")))
    assert session.screen.told[-1] == f"{path} is up to date"
    other, _ = initial(tmp_path / "b.safetensors", 12)
    path.unlink()
    with pytest.raises(InputError, match="comes from other settings or other data"):
        session.train(plan(initial=other), resume="must")
    again = read_weights(session.train(plan(initial=other)))
    assert not torch.equal(again["up.0.weight"], found["up.0.weight"])


def test_an_interrupted_run_that_started_from_another_model_goes_on(session, tmp_path):
    start, _ = initial(tmp_path / "a.safetensors", 11)
    whole = interrupted(session, initial=start)
    resumed = read_weights(session.train(plan(initial=start), resume="must"))
    assert "continuing at iteration 2 of 4" in session.screen.told
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not any("start from" in told for told in session.screen.told)


def test_a_model_of_which_nothing_fits_leaves_what_is_there_alone(session, tmp_path):
    session.train(plan())
    before = session.state()
    torch.manual_seed(0)
    start, _ = initial(tmp_path / "a.safetensors", 11)
    save_model(start.path, {"other": torch.zeros(1)}, start.card)
    with pytest.raises(InputError, match="fit this network"):
        session.train(plan(initial=open_initial(start.path)))
    after = session.state()
    assert {name: after[name] for name in before} == before


def test_resuming_without_a_checkpoint_is_refused(session):
    with pytest.raises(InputError, match=r"no checkpoint in .*run.* · train without --resume"):
        session.train(plan(), "must")
    assert not (session.folder / "model.safetensors").exists()


def test_resuming_where_there_may_be_a_checkpoint_begins_where_there_is_none(session):
    assert session.train(plan(), "may").exists()


@pytest.mark.parametrize("other", [{"accumulate": 2}, {"batch": 2}, {"fold": 1}, {"seed": 9}])
def test_resuming_with_other_settings_is_refused(session, other):
    interrupted(session)
    before = (session.folder / CHECKPOINT).read_bytes()
    with pytest.raises(InputError, match="comes from other settings or other data"):
        session.train(plan(**other), "must")
    assert (session.folder / CHECKPOINT).read_bytes() == before


def test_a_refused_resumption_leaves_a_finished_model_and_its_configuration_alone(session):
    session.train(plan())
    before = session.state()
    with pytest.raises(InputError, match="comes from other settings or other data"):
        session.train(plan(batch=2), "must")
    assert session.state() == before
    assert (session.folder / "config.yaml").read_text() == "changes: []\n"


def test_more_epochs_are_refused_until_they_are_asked_for(session):
    session.train(plan())
    before = session.state()
    with pytest.raises(InputError, match=r"was begun for 2 epochs, not 3 · give --extend"):
        session.train(plan(epochs=3), "must")
    assert session.state() == before
    path = session.train(plan(epochs=3), "extend")
    assert "continuing at iteration 4 of 6" in session.screen.told
    assert read_card(path).training["iterations"] == 6
    assert [record["epoch"] for record in read_log(session.folder / LOG)] == [1, 2, 3]
    with pytest.raises(InputError, match=r"has 3 epochs behind it, 2 are asked for"):
        session.train(plan(epochs=2), "extend")


def test_an_extended_run_follows_the_new_schedule_from_where_it_stands(session):
    session.train(plan())
    session.train(plan(epochs=4), "extend")
    warm = 2 / SETTINGS.optimizer.warmup  # of the first epoch's last iteration
    rates = [record["lr"] / SETTINGS.optimizer.lr for record in read_log(session.folder / LOG)]
    share = [(1 - 1 / 2) ** 0.9, (1 - 2 / 4) ** 0.9, (1 - 3 / 4) ** 0.9]
    assert rates == pytest.approx(
        [warm, *(s * w * warm for s, w in zip(share, (2, 3, 4), strict=True))]
    )


def test_a_torn_checkpoint_is_replaced_by_the_one_before_it(session):
    path = session.train(plan())
    whole = {name: value.clone() for name, value in read_weights(path).items()}
    path.unlink()
    torn = session.folder / CHECKPOINT
    torn.write_bytes(torn.read_bytes()[:500])
    weights = read_weights(session.train(plan(), "must"))
    assert any("the last checkpoint is damaged" in line for line in session.screen.told)
    assert "continuing at iteration 3 of 4" in session.screen.told
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())


def test_where_both_checkpoints_are_torn_it_is_said_what_to_do(session):
    session.train(plan())
    (session.folder / "model.safetensors").unlink()
    for name in (CHECKPOINT, PREVIOUS):
        path = session.folder / name
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"is not a checkpoint: .* · remove it"):
        session.train(plan(), "must")


def test_a_torn_model_is_made_again(session):
    path = session.train(plan())
    # copies: safetensors maps the file, which is about to be cut
    whole = {name: value.clone() for name, value in read_weights(path).items()}
    path.write_bytes(path.read_bytes()[:500])
    weights = read_weights(session.train(plan(), "may"))
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())


def test_zero_epochs_write_the_untrained_network(session):
    path = session.train(plan(epochs=0))
    torch.manual_seed(4)
    expected = StudentUNet(3, (2, 2, 4, 4), STRIDES).state_dict()
    weights = read_weights(path)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    card = read_card(path)
    assert (card.training["iterations"], card.training.get("last")) == (0, None)


def test_a_broken_case_is_left_out_and_named_after_the_model_is_written(session):
    broken = session.sources[0].image
    broken.write_bytes(broken.read_bytes()[:-200])
    for _ in range(2):  # a re-run, with the model done, still says so
        with pytest.raises(CasesFailedError) as caught:
            session.train(plan())
        assert str(caught.value).startswith("1 case left out of training: case_a: ")
        assert broken.name in str(caught.value)
        assert read_card(session.folder / "model.safetensors").training["cases"] == 1
    assert session.screen.told[-1].endswith("is up to date")


def test_cases_that_never_became_sources_are_named_with_the_broken_ones(session):
    session.sources[1].labels.unlink()
    with pytest.raises(CasesFailedError, match=r"2 cases .*case_z: not fused; case_b: "):
        session.train(plan(missing={"case_z": "not fused"}))
    assert (session.folder / "model.safetensors").exists()


def test_where_no_case_can_be_read_the_first_reason_is_told(session):
    for source in session.sources:
        source.labels.unlink()
    with pytest.raises(
        InputError, match=r"no case could be read; the first: case_a: .*case_a\.nii"
    ):
        session.train(plan())
    assert not (session.folder / "model.safetensors").exists()


def test_nothing_to_train_on_is_refused_before_anything_is_written(session):
    session.sources = []
    with pytest.raises(InputError, match="no case to train the student on"):
        session.train(plan())
    assert not session.folder.exists()


def losing_a_case(session):
    """A screen at whose training a case vanishes from the store."""

    class Losing(Screen):
        @contextmanager
        def progress(self, title):
            if title.startswith("Training the"):
                (session.folder / "store" / "case_b.b2nd").unlink()
            yield lambda *_: None

    return Losing()


@pytest.mark.parametrize("on_unreadable", ["stop", "skip"])
def test_a_case_lost_while_training_stops_the_run_or_is_passed_over_and_named(
    session, on_unreadable
):
    expected = {
        "stop": (InputError, r"cannot read training case 'case_b'"),
        "skip": (CasesFailedError, r"1 case left out .*case_b: .*\d+ samples came from"),
    }[on_unreadable]
    with pytest.raises(expected[0], match=expected[1]):
        run(
            plan(on_unreadable=on_unreadable, iterations=6),
            session.sources,
            session.folder,
            torch.device("cpu"),
            resume="never",
            screen=losing_a_case(session),
            draw=lambda *_: None,
        )
    assert (session.folder / "model.safetensors").exists() == (on_unreadable == "skip")


def test_the_card_holds_the_fingerprint_of_the_cohort(session):
    card = read_card(session.train(plan()))
    assert card.fingerprint["cases"] == 2
    assert card.fingerprint["size"]["median"] == [12.0, 24.0, 28.0]
    assert card.fingerprint["spacing_mm"]["p95"] == pytest.approx([3.0, 1.25, 0.75])
    tumor = 2 * 4 * 6 * 7
    assert card.fingerprint["classes"] == {
        "1": {"cases": 2, "voxels": 2 * 7 * 12 * 14 - tumor},
        "2": {"cases": 2, "voxels": tumor},
    }
    assert any(line.startswith("training store: 2 cases, about") for line in session.screen.told)
