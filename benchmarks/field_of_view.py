"""Does grouping know whether an organ lacks because the scan ends? Phantoms with shortened scans.

`python -m benchmarks.field_of_view --cohort DIR [--out field-of-view]`, with a cohort as `flarekd
phantom` makes it. Every second scan keeps 30 to 70 % of its slices, from one end; organs are taken
from the complete truth, tumours count as organ. Of every organ that a label file then lacks it is
known why: it was cut off with the slices, or the patient has none (phantoms after nephrectomy,
splenectomy or cholecystectomy). No pseudo-labels are given.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from flarekd.errors import CasesFailedError
from flarekd.imaging.files import read_labels, write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import ORGANS, TUMOR
from flarekd.stages.group_data import Folders, group_data


def shorten(path: Path, out: Path, generator: np.random.Generator | None) -> dict[int, str]:
    """Write a case, shortened where a generator is given; says why it lacks what it lacks."""
    truth = read_labels(path)
    array = np.where(truth.array == TUMOR, 1, truth.array)
    whole, depth = set(np.unique(array).tolist()), array.shape[0]
    if generator is not None:
        kept = int(depth * generator.uniform(0.3, 0.7))
        first = 0 if generator.random() < 0.5 else depth - kept
        array = array[first : first + kept]
    z, y, x = truth.geometry.spacing_zyx
    geometry = Geometry(array.shape[::-1], (x, y, z))
    write_labels(out / "labels" / path.name, LabelMap(np.ascontiguousarray(array), geometry))
    write_volume(out / "images" / path.name, Volume(np.zeros(array.shape, np.int16), geometry))
    absent = set(ORGANS) - set(np.unique(array).tolist())
    return {organ: "scan ends" if organ in whole else "removed" for organ in absent}


def main() -> None:
    """Shorten, group and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("field-of-view"))
    options = parser.parse_args()
    generator, known = np.random.default_rng(0), {}
    for number, path in enumerate(sorted((options.cohort / "truth").glob("*.nii.gz"))):
        name = path.name.removesuffix(".nii.gz")
        known[name] = shorten(path, options.out, generator if number % 2 else None)
    try:
        group_data(
            Folders(options.out / "images", options.out / "labels"), options.out / "cohort.csv"
        )
    except CasesFailedError as error:
        print(error)
    grouping = json.loads((options.out / "grouping.json").read_text(encoding="utf-8"))
    found = Counter(
        (known[case["case"]][one["label"]], one["verdict"])
        for case in grouping["cases"]
        for one in case["lacking"]
    )
    for (why, verdict), count in sorted(found.items()):
        print(f"{why}, called {verdict!r}: {count}")


if __name__ == "__main__":
    main()
