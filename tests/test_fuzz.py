"""Readers given files that are broken on purpose; ``benchmarks/fuzz.py`` does it at length."""

import itertools

import pytest
from benchmarks import fuzz, fuzz_inputs

INPUTS, SEED = 300, 1
SLOW = ("model", "card", "onnx", "openvino", "weights", "plans", "pickle")
"""What builds a network, or weighs one, and takes longer."""


@pytest.mark.parametrize("name", fuzz_inputs.READERS)
def test_a_broken_file_is_read_or_refused_and_nothing_else(name):
    """In a process of its own: what a library may do to its memory is no concern of other tests."""
    inputs = INPUTS // 5 if name in SLOW else INPUTS
    outcome = fuzz.fuzz(name, inputs, SEED)
    assert not outcome.crashes
    assert outcome.inputs == inputs
    assert outcome.refused > inputs // 5  # what is mutated is broken more often than not
    # not always: what comes after the first check is reached; a few may all be broken by chance
    assert outcome.refused < inputs or name in SLOW


@pytest.mark.parametrize("name", fuzz_inputs.READERS)
def test_what_is_mutated_is_sound_and_every_input_can_be_made_again(tmp_path, name):
    for sample in fuzz_inputs.samples(name):
        path = tmp_path / f"sound{fuzz_inputs.READERS[name].suffix}"
        path.write_bytes(sample.pack(sample.head, sample.body))
        assert fuzz.attempt(name, path, 0) == (False, None)
    made = [
        fuzz_inputs.make(name, seed, index) for seed, index in itertools.product((1, 2), (1, 2))
    ]
    assert len(set(made)) == 4
    assert made[0] == fuzz_inputs.make(name, 1, 1)


def test_a_crash_is_found_and_kept_with_its_input(tmp_path, monkeypatch, capsys):
    def divide(path):
        return 1 // (len(path.read_bytes()) % 2)

    reader = fuzz_inputs.Reader(".csv", [divide], fuzz_inputs.READERS["cohort"].samples)
    monkeypatch.setitem(fuzz_inputs.READERS, "cohort", reader)
    path = tmp_path / "case.csv"
    path.write_bytes(b"ab")
    refused, crash = fuzz.attempt("cohort", path, 7)
    assert not refused
    assert crash.what.startswith("ZeroDivisionError")
    outcome = fuzz.Outcome("cohort", inputs=1, crashes=[crash, crash])
    fuzz.keep(outcome, SEED, tmp_path / "crashes")
    (kept,) = (tmp_path / "crashes").iterdir()
    assert kept.read_bytes() == fuzz_inputs.make("cohort", SEED, 7)
    assert "ZeroDivisionError" in capsys.readouterr().out
