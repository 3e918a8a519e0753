"""What the issue promises of a phantom, looked for in rendered cases."""

import time
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from flarekd.labels import BY_ID
from flarekd.phantom.case import geometry, make_case
from flarekd.phantom.plan import plan_cohort

ID = {entry.name: entry.id for entry in BY_ID.values()}


def organ(case, name):
    return case.rendering.organs == ID[name]


def middle_mm(case, mask):
    """Centre of a mask in the patient's frame, z, y, x."""
    grid = case.plan.grid()
    return np.asarray(grid.start) + np.argwhere(mask).mean(axis=0) * grid.spacing


def volume_ml(case, mask):
    return mask.sum() * np.prod(case.plan.grid().spacing) / 1000


def test_arrays_are_hounsfield_units_and_ids_of_one_shape(cases):
    for case in cases:
        image, labels, organs = (
            case.rendering.image,
            case.rendering.labels,
            case.rendering.organs,
        )
        assert (image.dtype, labels.dtype, organs.dtype) == (np.int16, np.uint8, np.uint8)
        assert image.shape == labels.shape == organs.shape == case.plan.grid().shape
        assert image.min() >= -1024
        assert image.max() <= 3071
        assert organs.max() <= 13
        changed = labels != organs
        assert (labels[changed] == 14).all()


@pytest.mark.parametrize(
    ("name", "low_ml", "high_ml"),
    [
        ("liver", 1100, 1900), ("right_kidney", 120, 210), ("spleen", 110, 320),
        ("pancreas", 50, 110), ("aorta", 60, 200), ("ivc", 40, 100), ("right_adrenal", 3, 7),
        ("left_adrenal", 3, 7), ("gallbladder", 15, 50), ("esophagus", 15, 50),
        ("stomach", 150, 450), ("duodenum", 40, 95), ("left_kidney", 120, 210),
    ],
)  # fmt: skip
def test_organs_have_the_volumes_of_patients(cases, name, low_ml, high_ml):
    volumes = [volume_ml(case, organ(case, name)) for case in cases if organ(case, name).any()]
    assert low_ml < np.mean(volumes) < high_ml
    assert np.std(volumes) > 0.04 * np.mean(volumes)  # patients differ


def test_organs_lie_beside_their_neighbours(cases):
    for case in cases:
        at = {
            name: middle_mm(case, organ(case, name))
            for name in ID
            if name != "tumor" and organ(case, name).any()
        }
        z, y, x = range(3)
        # the patient's right is small x
        assert at["liver"][x] < at["stomach"][x]
        assert at["ivc"][x] < at["aorta"][x]
        assert at["right_adrenal"][x] < at["ivc"][x] + 15
        assert at["left_adrenal"][x] > at["aorta"][x]
        for side in ("right", "left"):
            if f"{side}_kidney" in at:
                assert at[f"{side}_adrenal"][z] > at[f"{side}_kidney"][z] + 10
        if "spleen" in at:
            assert at["spleen"][x] > at["pancreas"][x] > at["duodenum"][x]
        if "gallbladder" in at:
            assert at["gallbladder"][z] < at["liver"][z]
            assert at["gallbladder"][y] < at["liver"][y]
        assert at["esophagus"][z] > at["stomach"][z]
        assert at["pancreas"][y] < at["aorta"][y] + 8


def test_the_esophagus_reaches_the_stomach_and_the_stomach_the_duodenum(cases):
    for case in cases:
        for first, second in (("esophagus", "stomach"), ("stomach", "duodenum")):
            one = gaussian_filter(organ(case, first).astype(np.float32), 1.5) > 0.02
            assert (one & organ(case, second)).any(), (case.plan.case, first)


def test_every_organ_is_one_piece_but_for_crumbs(cases):
    for case in cases:
        for name in ("liver", "spleen", "left_kidney", "stomach", "duodenum"):
            mask = organ(case, name)
            if mask.any():
                parts, _ = label(mask, structure=np.ones((3, 3, 3)))
                assert np.bincount(parts.ravel())[1:].max() > 0.8 * mask.sum(), (
                    case.plan.case,
                    name,
                )


def test_organs_lie_inside_the_body(cases):
    for case in cases:
        inside = case.rendering.image[case.rendering.organs > 0]
        # stomach and duodenum hold gas, so a few voxels are dark
        assert np.mean(inside < -300) < 0.12


def test_missing_organs_are_missing_and_the_others_are_there(made, plans):
    lacking = [index for index, plan in enumerate(plans) if plan.missing][:4]
    assert lacking
    for index in lacking:
        case = made(plans[index])
        seen = set(np.unique(case.rendering.organs)) - {0}
        assert seen == set(range(1, 14)) - {ID[name] for name in case.plan.missing}


def test_contrast_phases_move_organs_as_in_patients(made, plans):
    plan = replace(next(plan for plan in plans if not plan.missing), tumors=())
    mean = {}
    for phase in ("native", "arterial", "portal"):
        case = made(replace(plan, phase=phase))
        mean[phase] = {
            name: np.median(case.rendering.image[organ(case, name)])
            for name in ("liver", "spleen", "aorta", "ivc", "pancreas", "left_kidney")
        }
    native, arterial, portal = mean["native"], mean["arterial"], mean["portal"]
    assert native["aorta"] < 60
    assert arterial["aorta"] > 180
    assert 90 < portal["aorta"] < arterial["aorta"]
    assert arterial["aorta"] > arterial["ivc"] + 60  # before the blood is back
    assert abs(portal["aorta"] - portal["ivc"]) < 60
    assert portal["liver"] > native["liver"] + 25
    assert arterial["liver"] < native["liver"] + 35  # the liver enhances late
    assert portal["left_kidney"] > native["left_kidney"] + 80
    assert arterial["pancreas"] > native["pancreas"] + 25
    assert abs(native["liver"] - native["spleen"]) < 35  # neighbours overlap


def test_lungs_bone_fat_gas_and_table_are_there(cases):
    for case in cases:
        image, grid = case.rendering.image, case.plan.grid()
        share = {
            name: np.mean((image > low) & (image < high))
            for name, low, high in (
                ("lung", -920, -750), ("fat", -140, -60), ("soft", 20, 200), ("bone", 250, 3000),
            )
        }  # fmt: skip
        assert share["lung"] > 0.01
        assert share["fat"] > 0.08
        assert share["soft"] > 0.1
        assert share["bone"] > 0.004
        lumen = image[(case.rendering.organs == 0) & (gaussian_filter(image, 1.5) > -700)]
        assert (lumen < -600).any()  # gas in the bowel
        y = grid.axis(1)
        shell = image[:, y > y[-1] - 40, :].max(axis=1)
        assert np.median(shell.max(axis=1)) > -450  # the couch, or the back


def test_the_scan_is_padded_outside_its_circle(made, plans):
    index = next(index for index, plan in enumerate(plans) if plan.circle)
    image = made(plans[index]).rendering.image
    assert (image[:, 0, 0] == -1024).all()
    open_index = next(index for index, plan in enumerate(plans) if not plan.circle)
    assert (made(plans[open_index]).rendering.image[:, 0, 0] > -1024).any()


def test_noise_is_as_strong_as_planned_and_correlated_in_plane(made, plans):
    plan = replace(plans[1], tumors=())
    first = made(plan).rendering.image.astype(float)
    quiet = made(replace(plan, noise_hu=1e-3)).rendering
    liver = quiet.organs == 1
    noise = first - quiet.image
    assert noise[liver].std() == pytest.approx(plan.noise_hu, rel=0.15)
    inside = noise * liver
    alike = (inside[:, :, 1:] * inside[:, :, :-1]).sum() / (inside**2).sum()
    between = (inside[1:] * inside[:-1]).sum() / (inside**2).sum()
    assert 0.03 < alike < 0.7
    assert between < alike + 0.1


def test_borders_are_blurred_by_thick_slices(made, plans):
    """Partial volume: under the dome a thick slice holds voxels between liver and lung."""
    plan = replace(plans[1], noise_hu=1e-3, tumors=())
    image = made(plan).rendering.image
    between = np.mean((image > -650) & (image < -250))
    assert 0.004 < between < 0.06


def test_tumors_replace_their_organ_in_the_truth_only(made, plans):
    seen = 0
    for plan in plans:
        if plan.tumors and plan.tumors[0].host == "liver":
            case = made(plan)
            tumor = case.rendering.labels == 14
            assert tumor.sum() >= 8
            host = np.bincount(case.rendering.organs[tumor], minlength=14)
            assert host[1] > 0
            seen += 1
        if seen == 3:
            break
    assert seen == 3


def test_every_case_that_should_have_a_tumor_shows_one(cases):
    for case in cases:
        assert (case.rendering.labels == 14).any() == bool(case.plan.tumors)


def test_cysts_and_calcifications_are_no_tumors(made, plans):
    plan = replace(plans[1], tumors=(), noise_hu=1e-3)
    dark = bright = 0
    for index in range(1, 7):
        rendering = made(replace(plan, index=index)).rendering
        assert rendering.labels.max() <= 13
        solid = np.isin(rendering.organs, [1, 2, 13])
        core = gaussian_filter(solid.astype(np.float32), 2) > 0.98
        dark += int((rendering.image[core] < 25).sum())
        aorta = rendering.image[rendering.organs == 5]
        bright += int((aorta > np.median(aorta) + 80).sum())
    assert dark > 10
    assert bright > 5


def test_an_oblique_scan_is_turned_by_a_few_degrees_only(plans):
    oblique = [plan for plan in plans if any(plan.storage.oblique_deg)]
    assert oblique
    for plan in oblique:
        cosines = np.abs(np.asarray(geometry(plan).direction).reshape(3, 3)).max(axis=0)
        assert (cosines > 0.95).all()
        assert (cosines < 1 - 1e-8).any()


def test_every_orientation_keeps_its_axes_and_its_first_voxel(plans):
    letters = ("LR", "PA", "SI")
    straight = replace(plans[0].storage, oblique_deg=(0.0, 0.0, 0.0))
    for order in permutations(range(3)):
        for signs in product(range(2), repeat=3):
            axes = "".join(letters[axis][sign] for axis, sign in zip(order, signs, strict=True))
            plan = replace(plans[0], storage=replace(straight, axes=axes))
            stored = geometry(plan)
            assert stored.shape_zyx == plan.grid().shape
            assert stored.spacing_zyx == pytest.approx(plan.grid().spacing)
            lowest = stored.corners().min(axis=0)
            assert lowest == pytest.approx(straight.origin, abs=1e-6)


def test_the_same_plan_gives_the_same_voxels(made, plans):
    one, two = made(plans[3]).rendering, make_case(plans[3]).rendering
    assert (one.image == two.image).all()
    assert (one.labels == two.labels).all()


def test_patients_of_one_cohort_are_not_alike(cases):
    livers = [volume_ml(case, organ(case, "liver")) for case in cases]
    assert max(livers) > 1.25 * min(livers)


def test_no_organ_runs_through_the_spine(built, plans):
    scene = built(plans[0])
    box, spine = scene.organs["spine"]
    for name in ("aorta", "ivc", "right_kidney", "left_kidney"):
        assert ((scene.over(box, name) < -1) & (spine < -2)).sum() == 0


@pytest.mark.slow
def test_a_full_case_takes_less_than_25_seconds():
    plans = plan_cohort(40, "full", 0)
    plan = max(plans, key=lambda plan: plan.grid().shape[0])
    start = time.process_time()
    case = make_case(plan)
    assert time.process_time() - start < 25
    assert case.rendering.image.shape[1:] == (512, 512)
    assert set(np.unique(case.rendering.organs)) >= {1, 4, 5, 6, 7, 8, 10, 11, 12}
    assert 3 < volume_ml(case, organ(case, "left_adrenal")) < 8
