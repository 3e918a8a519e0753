import json

import pytest

from flarekd.errors import InputError
from flarekd.foreign import BOTH, DATASETS
from flarekd.groups_file import TABLE_1, read_rules
from flarekd.labels import GROUPS


def read(folder, text):
    path = folder / "groups.yaml"
    path.write_text(text, encoding="utf-8")
    return read_rules(path)


def test_without_a_file_there_is_table_1():
    assert (TABLE_1.groups, TABLE_1.datasets) == (GROUPS, ())
    assert TABLE_1.dataset_of("any") is None


def test_groups_of_ones_own_stand_beside_table_1_or_replace_one_of_it(tmp_path):
    rules = read(tmp_path, "groups: {8: [liver, tumor], 9: [kidney, 14], 1: [3]}")
    assert rules.groups[8] == {1, 14}
    assert rules.groups[9] == {2, 13, 14}
    assert rules.groups[1] == {3}
    assert {number: rules.groups[number] for number in range(2, 8)} == {
        number: GROUPS[number] for number in range(2, 8)
    }


def test_the_first_data_set_whose_pattern_fits_a_case_is_its_own(tmp_path):
    rules = read(
        tmp_path,
        """
        datasets:
          - {cases: "case_0*", ids: kits23, organ_pseudo: totalsegmentator}
          - {cases: "case_*", ids: {1: spleen, 5: tumour, 9: background}}
          - {cases: "own_*", annotated: [liver, spleen]}
        """,
    )
    kits = rules.dataset_of("case_01")
    assert (kits.ids, kits.organ_pseudo) == (DATASETS["kits23"], DATASETS["totalsegmentator"])
    assert (kits.name, kits.annotated) == ("kits23", {2, 13, 14})
    own = rules.dataset_of("case_11")
    assert (own.ids.ids, own.annotated) == (((1, 3), (5, 14), (9, 0)), {3, 14})
    ours = rules.dataset_of("own_1")
    assert (ours.ids, ours.annotated, ours.name) == (None, {1, 3}, "own_*")
    assert rules.dataset_of("Case_01") is None


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "kidney", "2": "cancer"},  # Decathlon, nnU-Net v1
        {"background": 0, "kidney": 1, "cancer": 2},  # nnU-Net v2
    ],
)
def test_a_dataset_json_says_what_ids_are(tmp_path, labels):
    content = json.dumps({"name": "Kidney", "labels": labels})
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
    ids = read(tmp_path, "datasets: [{ids: dataset.json}]").dataset_of("a").ids
    assert (ids.name, ids.ids) == ("Kidney", ((0, 0), (1, BOTH), (2, 14)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("groups: {8: [livr]}", r"groups\.8: 'livr' is none of background, liver"),
        ("groups: {8: [15]}", r"groups\.8: 15 is no class among 1\.\.14"),
        ("groups: {8: [background]}", r"groups\.8: 'background' is no class"),
        ("groups: {8: []}", r"groups\.8: a group has at least one class"),
        ("groups: {0: [liver]}", r"groups\.0: the number of a group is 1 or more"),
        ("datasets: [{ids: kits}]", r"datasets\.0: no data set 'kits'; there are .*kits23"),
        ("datasets: [{ids: {1: bladder}}]", r"datasets\.0: 'bladder' is none of"),
        ("datasets: [{ids: gone.json}]", r"datasets\.0: .*gone\.json"),
        ("datasets: [{organ_pseudo: lits}]", r"organ_pseudo: 'lits' names a tumour"),
        ("datasets: [{id: lits}]", r"datasets\.0\.id: Extra inputs are not permitted"),
        ("datasets: [{images: scans}]", r"datasets\.0: 'scans' must have \{case\} in it"),
        ("datasets: [{labels: '/a/{case}'}]", r"datasets\.0: .* must be a path below the folder"),
        ("datasets: [{others: background}]", r"datasets\.0: others: of which names\?"),
        ("datasets: [{ids: lits, others: liver}]", r"datasets\.0\.others: Input should be 'back"),
        ("datasets: [{ids: {liver: liver}}]", r"'liver' is no id; names of files go with labels"),
        (
            "datasets: [{labels: '{case}/{label}.nii.gz', ids: totalsegmentator}]",
            r"datasets\.0: ids: 'totalsegmentator' is of numbers, masks go by their names",
        ),
        (
            "datasets: [{labels: '{case}/{label}.nii.gz', ids: {a: livr}}]",
            r"datasets\.0: 'livr' is none of",
        ),
        ("groups: [", "cannot read"),
    ],
)
def test_what_groups_yaml_cannot_say_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text)
    assert caught.value.exit_code == 3


def test_what_is_none_of_our_classes_may_be_background(tmp_path):
    names = {"background": 0, "spleen": 1, "femur": 2, "ignore": 3}
    content = json.dumps({"labels": names, "name": "Bones"})
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
    (bones,) = read(tmp_path, "datasets: [{ids: dataset.json, others: background}]").datasets
    assert bones.ids.ids == ((0, 0), (1, 3), (3, 255))
    assert bones.ids.unknown({2: 5, 9: 1}) == {}
    assert (bones.ids.others, bones.annotated) == (("femur",), {3})
    (lits,) = read(tmp_path, "datasets: [{ids: lits, others: background}]").datasets
    assert lits.ids.unknown({9: 1}) == {}
    assert DATASETS["lits"].unknown({9: 1}) == {9: 1}


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(InputError, match=r"groups\.8: .*; groups\.9: .*; datasets\.0: "):
        read(tmp_path, "groups: {8: [a], 9: [b]}\ndatasets: [{ids: c}]")


@pytest.mark.parametrize("label", ["[[1]]", "Infinity", "NaN", "{}", "null", "1e400"])
def test_an_id_that_is_no_number_is_refused(tmp_path, label):
    content = f'{{"labels": {{"kidney": {label}}}}}'
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"'kidney' is .*, which is no id"):
        read(tmp_path, "datasets: [{ids: dataset.json}]")


@pytest.mark.parametrize(
    ("labels", "others", "expected"),
    [
        # KiTS23 as nnU-Net trains it, with a name of ours for each region
        ({"kidney": [1, 2, 3], "cyst": [2, 3], "tumor": 2}, "", {1: "both", 2: 14, 3: "both"}),
        ({"tumor": [2], "kidney": [1, 2, 3]}, "", {1: "both", 2: 14, 3: "both"}),
        # and as it calls them: what is none of ours belongs to the region around it
        (
            {"kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2},
            ", others: background",
            {1: "both", 2: 14, 3: "both"},
        ),
        ({"abdomen": [1, 2], "liver": 1, "spleen": 2}, "", {1: 1, 2: 3}),
    ],
)
def test_an_id_in_several_regions_of_a_dataset_json_is_what_the_smallest_is(
    tmp_path, labels, others, expected
):
    content = json.dumps({"labels": {"background": 0, **labels}})
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
    ids = read(tmp_path, f"datasets: [{{ids: dataset.json{others}}}]").dataset_of("a").ids
    assert ids.others == ()  # none is told to be background
    found = {theirs: ours for theirs, ours in ids.ids if theirs}
    assert found == {key: BOTH if value == "both" else value for key, value in expected.items()}


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"kidney": [1, 2], "masses": [2]}, "'masses' is none of "),
        ({"kidney": [1, [2, 3]]}, r"'kidney' is \[2, 3\], which is no id"),
        ({"kidney": {"ids": [1]}}, "'kidney' is .*, which is no id"),
    ],
)
def test_a_region_that_is_not_understood_is_refused(tmp_path, labels, told):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}), encoding="utf-8")
    with pytest.raises(InputError, match=told):
        read(tmp_path, "datasets: [{ids: dataset.json}]")


@pytest.mark.parametrize(
    "content",
    [
        '{"labels": ' * 100_000,
        '{"labels": {"a": %s}}' % ("9" * 5000),
        '{"labels": {"kidney": 1e999}}',
        '{"labels": {"kidney": NaN}}',
        '{"labels": [1]}',
        "[]",
        '{"labels": {"kidney": null}}',
        '{"labels": {"1": "\\ud800"}}',
        "\udcff",
    ],
)
def test_a_dataset_json_that_makes_no_sense_is_refused(tmp_path, content):
    text = content.encode("utf-8", "surrogateescape")
    (tmp_path / "dataset.json").write_bytes(text)
    with pytest.raises(InputError, match=r"datasets\.0: "):
        read(tmp_path, "datasets: [{ids: dataset.json}]")
