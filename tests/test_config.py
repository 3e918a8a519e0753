from pathlib import Path

import pytest
import yaml

from flarekd import config
from flarekd.errors import InputError


def flare23():
    return config.load(config.builtin("flare23"))


@pytest.mark.paper
def test_flare23_is_the_papers_protocol():
    teacher, student = flare23().teacher, flare23().student
    assert (teacher.epochs, teacher.iterations, teacher.batch) == (1000, 250, 4)
    assert (student.epochs, student.iterations, student.batch) == (1500, 250, 2)
    assert teacher.patch == (1, 512, 512)
    assert student.patch == (32, 128, 192)
    assert teacher.spacing == (0.8164, 0.8164)
    assert student.spacing == (4.0, 1.2, 1.2)
    assert teacher.channels == (32, 64, 128, 256, 480, 480, 480, 480)
    assert student.channels == (16, 32, 64, 128, 256)
    assert (teacher.optimizer.lr, student.optimizer.lr) == (0.005, 0.01)
    for optimizer in (teacher.optimizer, student.optimizer):
        assert (optimizer.name, optimizer.momentum, optimizer.clip) == ("sgd", 0.99, 12)
        assert (optimizer.weight_decay, optimizer.ema, optimizer.warmup) == (3e-5, 0, 0)
    assert (teacher.probe, teacher.min_foreground) == ("top-left", 1)


def test_a_teacher_may_run_every_window():
    paper = config.builtin("flare23")
    assert config.load(paper, ["teacher.min_foreground=0"]).teacher.min_foreground == 0
    with pytest.raises(InputError, match="min_foreground"):
        config.load(paper, ["teacher.min_foreground=-1"])


@pytest.mark.paper
def test_deep_supervision_weights_halve_from_level_to_level():
    teacher = [0.5**level for level in range(6)] + [0.0]
    total = sum(teacher)
    assert flare23().teacher.deep_supervision == pytest.approx(
        [w / total for w in teacher], abs=5e-5
    )
    student = [0.5**level for level in range(4)]
    assert flare23().student.deep_supervision == pytest.approx(
        [w / sum(student) for w in student], abs=5e-5
    )


@pytest.mark.paper
def test_augmentation_values_are_those_that_ran():
    values = flare23().student.augmentation
    assert values == flare23().teacher.augmentation
    assert (values.elastic, values.elastic_alpha, values.elastic_sigma) == (0.2, (0, 200), (9, 13))
    assert (values.rotation, values.rotation_degrees) == (0.2, (-180, 180))
    assert (values.scaling, values.scaling_down, values.scaling_up) == (0.2, (0.7, 1), (1, 1.4))
    assert (values.noise, values.noise_sd) == (0.1, (0, 0.1))
    assert (values.blur, values.blur_sigma) == (0.2, (0.5, 1))
    assert (values.brightness, values.brightness_factor) == (0.15, (0.75, 1.25))
    assert (values.contrast, values.contrast_down, values.contrast_up) == (
        0.15,
        (0.75, 1),
        (1, 1.25),
    )
    assert (values.low_resolution, values.low_resolution_zoom) == (0.25, (0.5, 1))
    assert (values.gamma_inverted, values.gamma) == (0.1, 0.3)
    assert (values.gamma_down, values.gamma_up) == ((0.7, 1), (1, 1.5))


@pytest.mark.parametrize("name", ["quick", "flare23"])
def test_every_builtin_configuration_loads_and_survives_dumping(tmp_path, name):
    loaded = config.load(config.builtin(name))
    path = tmp_path / "config.yaml"
    path.write_text(config.dump(loaded), encoding="utf-8")
    assert config.load(path) == loaded


def test_quick_is_a_copy_that_states_only_what_differs():
    quick = config.load(config.builtin("quick"))
    assert yaml.safe_load(config.builtin("quick").read_text(encoding="utf-8"))["base"] == "flare23"
    assert quick.protocol == flare23().protocol
    assert quick.student.epochs != flare23().student.epochs


def test_settings_change_single_keys():
    changed = config.load(
        config.builtin("quick"), ["student.epochs=0", "teacher.optimizer.lr=0.5", "seed=7"]
    )
    assert (changed.student.epochs, changed.teacher.optimizer.lr, changed.seed) == (0, 0.5, 7)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("student.epoch=3", "student.epoch is unknown, did you mean 'epochs'"),
        ("studnet.epochs=3", "studnet is unknown, did you mean 'student'"),
        ("student.epochs=many", "student.epochs: .* got 'many'"),
        ("student.optimizer.lr=1e-2x", "YAML reads 1e-2 as text"),
        ("student.epochs", "is not key=value"),
        ("seed.x=1", "'seed' holds a value, not keys"),
        ("student.oversize=[1, 1, 1]", "oversize .* is smaller than patch"),
        ("student.deep_supervision=[1, 1]", "sums to 2.0000, not 1"),
        # no training ends with a model file that nobody may read
        ("student.spacing=[1, 0.01, 1]", r"student\.spacing.* greater than or equal to 0\.05"),
        ("teacher.spacing=[1, 99]", r"teacher\.spacing.* less than or equal to 50"),
        ("student.step=0.01", r"student\.step.* greater than or equal to 0\.05"),
        ("student.channels=[9999, 9999]", r"student\.channels.* less than or equal to 4096"),
        (f"student.channels={[2] * 13}", r"student\.channels.* at most 12"),
        ("student.patch=[512, 512, 512]", "more than 16,777,216"),
        ("teacher.min_ml=.inf", r"teacher\.min_ml.* finite"),
    ],
)
def test_a_faulty_setting_is_named(setting, message):
    with pytest.raises(InputError, match=message):
        config.load(config.builtin("quick"), [setting])


def test_all_problems_are_told_at_once():
    with pytest.raises(InputError) as error:
        config.load(
            config.builtin("quick"), ["student.epochs=-1", "teacher.batch=0", "fusion=best"]
        )
    for key in ("student.epochs", "teacher.batch", "fusion"):
        assert key in str(error.value)


@pytest.mark.parametrize(
    ("written", "meant"), [("more", ("more",)), ("[one, two]", ("one", "two")), ("null", ())]
)
def test_folders_without_labels_are_one_or_many(tmp_path, written, meant):
    path = tmp_path / "mine.yaml"
    text = f"base: quick\ndata: {{images: scans, out: run, unlabeled: {written}}}\n"
    path.write_text(text, encoding="utf-8")
    data = config.load(path).data
    assert data is not None
    assert data.unlabeled == tuple(tmp_path / name for name in meant)
    again = tmp_path / "again.yaml"
    again.write_text(config.dump(config.load(path)), encoding="utf-8")
    assert config.load(again).data == data


def test_data_folders_are_relative_to_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: quick\ndata:\n  images: scans\n  groups: my.yaml\n  out: /abs/out\n"
        "  previous: [round1, /abs/round2]\nquality: {drop: [case distance > 4]}\n",
        encoding="utf-8",
    )
    data = config.load(path).data
    assert data is not None
    assert data.images == tmp_path / "scans"
    assert data.groups == tmp_path / "my.yaml"
    assert str(data.out) == "/abs/out"
    assert data.previous == (tmp_path / "round1", Path("/abs/round2"))
    assert config.load(path).quality.drop == ("case distance > 4",)  # a rule is no path


@pytest.mark.parametrize("text", ["- a\n", "a: [", "base: other\n", "base: [1]\n"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        config.load(path)


def test_python_objects_in_yaml_are_not_made(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("a: !!python/object/apply:os.system ['touch /tmp/evil']\n", encoding="utf-8")
    with pytest.raises(InputError, match="cannot read configuration"):
        config.load(path)
