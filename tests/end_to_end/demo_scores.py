"""Hold a finished demo to what it promises: ``python -m tests.end_to_end.demo_scores DEMO``."""

import json
import sys
from pathlib import Path


def problems(demo):
    """What a demo folder falls short of, one sentence each; goals not yet met are only told."""
    scores = json.loads((demo / "scores" / "scores.json").read_text(encoding="utf-8"))
    fusion = json.loads((demo / "fusion.json").read_text(encoding="utf-8"))
    organs, tumor = scores["organs"]["dsc"], scores["tumor"]["dsc"]
    paper, simple = fusion["paper"]["with_tumor"], fusion["simple"]["with_tumor"]
    sys.stdout.write(
        f"held-out organs {organs:.3f} (at least 0.50), tumour {tumor:.3f} (goal 0.10); "
        f"fused tumour labels: paper {paper:.3f}, simple {simple:.3f}\n"
    )
    if scores["cases"] < 6:
        yield f"only {scores['cases']} held-out cases"
    if organs < 0.50:
        yield f"mean organ DSC {organs:.3f} is below 0.50"


def main():
    """Print every shortfall and end with 1 if there is one."""
    found = list(problems(Path(sys.argv[1])))
    for problem in found:
        sys.stderr.write(f"demo: {problem}\n")
    if not found:
        sys.stdout.write("the demo holds what it promises\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
