"""pseudo-organs: cohort.csv + a network for organs → organ pseudo-labels where people drew none."""

from __future__ import annotations

from pathlib import Path

from flarekd.cohort import read_cohort
from flarekd.errors import InputError
from flarekd.labels import NAMES, ORGANS
from flarekd.modelfile import ModelCard
from flarekd.segmenting import Options, segment_scans


def pseudo_organs(cohort: Path, model: Path, out: Path, options: Options | None = None) -> None:
    """Label the organs of every training case whose own label does not vouch for all 13.

    Args:
        cohort: cohort.csv.
        model: Model file that ``train-teacher --task organs`` made, or another that labels nothing
            but our organs.
        out: Gets <case>.nii.gz (uint8, 0 to 13) and report.json, as `infer` writes them.
        options: How.

    Raises:
        InputError: If the model labels anything else, or a pseudo-label would replace a case's
            file.
        CasesFailedError: After the rest is written, if some cases failed.
    """
    cases = [
        c for c in read_cohort(cohort) if c.split == "train" and len(c.known_organs) < len(ORGANS)
    ]
    for case in cases:
        case.refuse_own([out / f"{case.case}.nii.gz"])

    def check(card: ModelCard) -> None:
        ours = dict(enumerate(NAMES[: len(ORGANS) + 1]))
        found = zip(card.label_ids, card.labels, strict=True)
        others = [name for label, name in found if ours.get(label) != name]
        if others:
            raise InputError(
                f"{str(model)!r} labels {', '.join(others)}, organ pseudo-labels hold organs alone",
                "train one with `flarekd train-teacher --task organs`",
            )

    scans = {case.case: case.image for case in cases}
    segment_scans(scans, model, out, options or Options(), check)
