"""What the ablation says of its numbers."""

import pytest
from benchmarks.ablation_table import QUESTIONS, differences, direction, table

FUSION = QUESTIONS[0]


@pytest.mark.paper
def test_the_papers_differences_are_those_of_its_tables():
    found = {q.after: {m: round(v, 2) for m, v in q.paper.items()} for q in QUESTIONS if q.paper}
    assert found == {
        "2d-paper": {"tumor": 9.62, "organs": -0.25},
        "3d-paper": {"tumor": -9.99, "organs": -3.01},
        "3d-paper-all": {"tumor": 5.66, "organs": 1.82},
        "teacher-attention-full": {"tumor": 2.47},
    }


@pytest.mark.parametrize(
    ("found", "paper", "said"),
    [
        ([1.0, 2.0, 0.1], 9.62, "same"),
        ([-1.0, -2.0, -0.1], 9.62, "opposite"),
        ([-1.0, -2.0], -9.99, "same"),
        ([1.0, -0.1, 3.0], 9.62, "undecided"),
        ([1.0, 0.0, 3.0], 9.62, "undecided"),
    ],
)
def test_a_direction_needs_all_seeds(found, paper, said):
    assert direction(found, paper).startswith(said)


def test_differences_are_of_the_seeds_that_have_both_runs():
    seeds = {
        0: {"2d-simple": {"tumor": 0.2, "organs": 0.5}, "2d-paper": {"tumor": 0.3, "organs": 0.4}},
        1: {"2d-simple": {"tumor": 0.2, "organs": 0.5}},
    }
    assert differences(seeds, FUSION, "tumor") == pytest.approx([10.0])
    written = table(seeds)
    assert (
        "| 2d-simple | 20.0 ± 0.0 (20.0, 20.0) | 25.18 | 50.0 ± 0.0 (50.0, 50.0) | 89.97 |"
        in written
    )
    assert "+9.62 (Table 6) | 10.0 (10.0) | same direction as the paper |" in written
    assert "-0.25 (Table 6) | -10.0 (-10.0) | same direction as the paper |" in written
