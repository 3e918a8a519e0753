"""Hold a finished demo to what it promises: ``python -m tests.end_to_end.demo_scores DEMO``."""

import json
import sys
from pathlib import Path


def problems(demo):
    """What a demo folder falls short of, one sentence each."""
    scores = json.loads((demo / "scores" / "scores.json").read_text(encoding="utf-8"))
    fusion = json.loads((demo / "fusion.json").read_text(encoding="utf-8"))
    organs, tumor = scores["organs"]["dsc"], scores["tumor"]["dsc"]
    paper, simple = fusion["paper"]["all"], fusion["simple"]["all"]
    if scores["cases"] < 6:
        yield f"only {scores['cases']} held-out cases"
    if organs < 0.50:
        yield f"mean organ DSC {organs:.3f} is below 0.50"
    if tumor < 0.10:
        yield f"tumour DSC {tumor:.3f} is below 0.10"
    if paper <= simple:
        yield f"the paper's fusion {paper:.3f} is not above simple fusion {simple:.3f}"


def main():
    """Print every shortfall and end with 1 if there is one."""
    found = list(problems(Path(sys.argv[1])))
    for problem in found:
        sys.stderr.write(f"demo: {problem}\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
