import numpy as np
import pytest
from scipy.ndimage import label

from flarekd.labels import GROUPS
from flarekd.phantom.annotate import organ_pseudo_labels, partial_labels

# liver with a tumour in it, an aorta, a tumour outside any organ, background
TRUTH = np.asarray([[[1, 14, 5, 14, 0]]], dtype=np.uint8)
ORGANS = np.asarray([[[1, 1, 5, 0, 0]]], dtype=np.uint8)


@pytest.mark.paper
@pytest.mark.parametrize(
    ("group", "drawn"),
    [
        (1, [0, 14, 0, 14, 0]),  # only tumours
        (2, [1, 1, 0, 0, 0]),  # the tumour in the liver is liver, the other is nothing
        (3, [1, 1, 0, 0, 0]),
        (4, [1, 14, 0, 14, 0]),
        (5, [1, 1, 5, 0, 0]),
        (6, [1, 1, 5, 0, 0]),
        (7, [1, 1, 5, 0, 0]),
    ],
)
def test_a_group_draws_what_table_1_says_and_hides_tumors_it_does_not_annotate(group, drawn):
    assert partial_labels(TRUTH, ORGANS, group)[0, 0].tolist() == drawn


def test_partial_labels_hold_only_what_the_group_annotates(cases):
    for case in cases[:3]:
        rendering = case.rendering
        for group, annotated in GROUPS.items():
            partial = partial_labels(rendering.labels, rendering.organs, group)
            assert partial.dtype == np.uint8
            assert set(np.unique(partial)) - {0} <= annotated


def test_an_unknown_group_is_refused():
    with pytest.raises(ValueError, match="group 8 is none"):
        partial_labels(TRUTH, ORGANS, 8)


def dice(one, two):
    return 2 * (one & two).sum() / (one.sum() + two.sum())


@pytest.fixture(scope="module")
def pseudo(cases):
    return [
        organ_pseudo_labels(
            case.rendering.organs, case.plan.grid().spacing, case.plan.random(60), case.plan.factor
        )
        for case in cases
    ]


@pytest.mark.parametrize(
    ("ids", "low", "high"),
    [
        ((1, 2, 3, 13, 11), 0.85, 0.96),  # large
        ((5, 6, 4, 9, 10), 0.78, 0.96),
        ((12,), 0.65, 0.9),
        ((7, 8), 0.5, 0.85),  # adrenals, some of them missed
    ],
)
def test_pseudo_labels_are_as_good_as_a_models(cases, pseudo, ids, low, high):
    for name in ids:
        scores = [
            dice(case.rendering.organs == name, guess == name)
            for case, guess in zip(cases, pseudo, strict=True)
            if (case.rendering.organs == name).any()
        ]
        assert low < np.mean(scores) < high, name


def test_pseudo_labels_know_no_tumor_and_leave_the_truth_alone(cases, pseudo):
    for case, guess in zip(cases, pseudo, strict=True):
        assert guess.max() <= 13
        assert guess.dtype == np.uint8
        assert guess is not case.rendering.organs


def test_some_small_organs_are_missed_and_some_islands_are_false(cases):
    case = next(case for case in cases if not case.plan.missing)
    organs, spacing = case.rendering.organs, case.plan.grid().spacing
    missed = islands = 0
    for seed in range(30):
        guess = organ_pseudo_labels(organs, spacing, np.random.default_rng(seed))
        missed += sum(not (guess == name).any() for name in (7, 8, 9, 10))
        liver_parts, count = label(guess == 1)
        islands += count > 1 and not (organs[liver_parts == count] == 1).all()
        assert (guess == 1).any()  # a large organ never is
    assert 1 <= missed <= 20
    assert islands >= 1


def test_a_scan_without_organs_has_no_pseudo_labels():
    empty = np.zeros((6, 8, 8), dtype=np.uint8)
    assert not organ_pseudo_labels(empty, (5.0, 3.0, 3.0), np.random.default_rng(0)).any()


def test_coarser_work_gives_about_the_same_labels(cases):
    """Full scans are annotated on every fourth pixel: an enlarged case comes out alike."""
    case = cases[1]
    organs = case.rendering.organs[10:40]
    z, y, x = case.plan.grid().spacing
    fine = np.repeat(np.repeat(organs, 4, axis=1), 4, axis=2)
    guess = organ_pseudo_labels(fine, (z, y / 4, x / 4), np.random.default_rng(1), factor=4)
    assert guess.shape == fine.shape
    assert dice(guess == 1, fine == 1) > 0.85
