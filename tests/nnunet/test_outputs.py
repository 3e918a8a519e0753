"""Names of outputs become flarekd's classes, all of them or none."""

from __future__ import annotations

import pytest

from flarekd.labels import NAMES
from flarekd.nnunet.outputs import label_outputs


def test_names_that_flarekd_knows_get_its_ids():
    names = ("background", "Tumour", "liver", "right kidney", "postcava", "LAG")
    assert label_outputs(names, 6) == (
        ("background", "tumor", "liver", "right_kidney", "ivc", "left_adrenal"),
        (0, 14, 1, 2, 6, 8),
    )


@pytest.mark.parametrize("index", [0, 1], ids=["names", "abbreviations"])
def test_the_names_of_flare_are_all_known(index):
    flare = [
        "liver RK spleen pancreas aorta IVC RAG LAG gallbladder esophagus stomach duodenum LK",
        "Liver RK Spl Pan Aor IVC RAG LAG Gall Eso Sto Duo LK",
    ][index].split()
    assert label_outputs(("background", *flare), 14) == (NAMES[:14], tuple(range(14)))


def test_one_unknown_name_keeps_all_as_they_were_trained():
    names = ("background", "spleen", "bladder")
    assert label_outputs(names, 3) == (names, (0, 1, 2))


def test_outputs_without_names_are_numbered():
    assert label_outputs((), 3) == (("background", "label_1", "label_2"), (0, 1, 2))


@pytest.mark.parametrize("names", [("background", "liver"), ("background", *"abc")])
def test_a_wrong_number_of_names_is_refused(names):
    with pytest.raises(ValueError, match=f"{len(names) - 1} names for 2 outputs"):
        label_outputs(names, 3)


def test_one_class_twice_is_refused():
    with pytest.raises(ValueError, match="two outputs are called 'tumor'"):
        label_outputs(("background", "lesion", "cancer"), 3)
