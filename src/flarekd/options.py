"""The options that several verbs share, and the words they may be given."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class Preset(str, enum.Enum):
    """Size of the phantoms and of the networks."""

    quick = "quick"
    full = "full"


class TaskName(str, enum.Enum):
    """What a teacher learns."""

    tumor = "tumor"
    organs = "organs"


class FusionStrategy(str, enum.Enum):
    """How labels are fused."""

    paper = "paper"
    simple = "simple"


class Protocol(str, enum.Enum):
    """How labels are scored."""

    flare23 = "flare23"
    corrected = "corrected"


class RuntimeName(str, enum.Enum):
    """What runs a network."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"
    onnx = "onnx"


class WindowsName(str, enum.Enum):
    """Which windows of a scan are run."""

    full = "full"
    efficient = "efficient"
    body = "body"
    paper = "paper"


class Interpolation(str, enum.Enum):
    """How logits become labels at native resolution."""

    linear = "linear"
    nearest = "nearest"


class ProbeName(str, enum.Enum):
    """The window of a slice that decides whether the others are run."""

    top_left = "top-left"
    middle = "center"  # `center` is a method of text


Out = Annotated[Path, typer.Option("--out", help="Where the results go.")]
Cohort = Annotated[Path, typer.Option(help="cohort.csv, as group-data makes it.")]
Model = Annotated[
    Path, typer.Option(help="Model file: *.safetensors, or *.onnx or *.xml that export wrote.")
]
Trained = Annotated[Path, typer.Option("--model", help="Model file (*.safetensors).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file; the paper's protocol where left out.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting: section.key=value. Repeatable.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in --out.")]
Extend = Annotated[
    bool, typer.Option("--extend", help="Continue, for more epochs than it was begun with.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write event files too (extra 'track').")
]
Init = Annotated[
    Path | None, typer.Option("--init", help="Model file to start from; what fits is taken.")
]
Task = Annotated[
    TaskName, typer.Option(help="organs: a 3D network of the 13, by section 'student'.")
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes; as many as fit where left out.")]
Scans = Annotated[
    list[Path],
    typer.Argument(help="Scans, DICOM folders, folders of them, or 'FOLDER/{case}/name.nii.gz'."),
]
Runtime = Annotated[RuntimeName, typer.Option(help="What runs the network.")]
MaxMemory = Annotated[float | None, typer.Option(min=0.1, help="GB of main memory to keep to.")]
Windows = Annotated[
    WindowsName | None, typer.Option(help="Which to run (docs/inference.md); the model file says.")
]
Step = Annotated[
    float | None, typer.Option(min=0.05, max=1, help="Windows apart, as a share of the patch.")
]
Labels = Annotated[
    Interpolation, typer.Option(help="How labels come to the scan's own resolution.")
]
Plans = Annotated[
    Path | None,
    typer.Option(help="plans.json (v2), *.model.pkl or plans.pkl (v1); looked for nearby."),
]
OutputNames = Annotated[
    str | None,
    typer.Option(help="Names of the outputs beside the background: liver,spleen,tumor"),
]
Orientation = Annotated[
    str | None,
    typer.Option(help="Where x, y, z of its training arrays run to; LPS where left out."),
]
Statistics = Annotated[
    bool, typer.Option("--statistics", help="Volumes, mean HU and tumours as JSON and CSV.")
]
Preview = Annotated[bool, typer.Option("--preview", help="A picture of each scan.")]
DicomSeg = Annotated[
    bool, typer.Option("--dicom-seg", help="DICOM SEG too (extra 'dicom'; DICOM folders only).")
]
Command = Annotated[
    list[str], typer.Argument(help="Program and arguments; {run} is the number of the run.")
]
Gpu = Annotated[int | None, typer.Option(min=0, help="Device by NVML's number; 0 if there is one.")]
Form = Annotated[
    str | None, typer.Option("--format", help="onnx or openvino; by the file's suffix.")
]
Calibrate = Annotated[
    Path | None, typer.Option(help="Scans, or one: ranges of --int8, windows of the check.")
]
Strategy = Annotated[FusionStrategy, typer.Option(help="Eq. 3, 4, 5, or the ablation's baseline.")]
OrganPseudo = Annotated[Path | None, typer.Option(help="Folder of organ pseudo-labels.")]
Organs = Annotated[
    Path | None,
    typer.Option(help="Folder of organ pseudo-labels; where it has a case, instead of cohort.csv."),
]
Groups = Annotated[
    Path | None, typer.Option(help="groups.yaml: other groups, other data sets' label ids.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Leave out what a person should decide.")]
Scheduler = Annotated[
    str | None, typer.Option(help="Dask scheduler tcp://HOST:PORT that does the work.")
]
Provenance = Annotated[
    bool, typer.Option("--provenance", help="Volumes that say which source each voxel came from.")
]
Ignore = Annotated[
    float | None,
    typer.Option(
        "--ignore", min=0, help="Leave open where labels contradict over a ball of so many mm."
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(help="Leave out: 'component confidence < 0.7' (docs/fusion.md). Repeatable."),
]
Review = Annotated[
    Path | None,
    typer.Option(help="review.csv of `flarekd review`: leaves out the cases ticked drop or fix."),
]
Probability = Annotated[
    bool, typer.Option("--probability", help="The tumour probability too, 0 to 255.")
]
Probe = Annotated[
    ProbeName | None,
    typer.Option(help="Window of a slice that decides on the others; the model file says."),
]
MinForeground = Annotated[
    int | None,
    typer.Option(min=0, help="Tumour pixels it must hold, 0 runs all; the model file says."),
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Probability above which is tumour; the model file says."),
]
MinMl = Annotated[
    float | None,
    typer.Option("--min-ml", min=0, help="Leave out tumours of fewer ml; the model file says."),
]
Quality = Annotated[
    bool, typer.Option("--quality", help="Figures of each pseudo-label; runs the teacher twice.")
]
OrganQuality = Annotated[
    bool, typer.Option("--quality", help="How far each case is from those of the training.")
]
Against = Annotated[
    Path | None,
    typer.Option(help="Another teacher, for the agreement; a flipped scan where left out."),
]
Previous = Annotated[
    list[Path] | None,
    typer.Option(help="Pseudo-labels of an earlier round, oldest first. Repeatable."),
]
Cases = Annotated[int, typer.Option(min=4, help="All cases: labelled, unlabelled, held out.")]
Scoring = Annotated[Protocol, typer.Option(help="The official scorer, or it without its quirks.")]
Predictions = Annotated[Path, typer.Option(help="Folder of label maps to score.")]
References = Annotated[Path, typer.Option(help="Folder of complete label maps.")]
Images = Annotated[Path | None, typer.Option(help="Folder of scans, for the pictures.")]
Traits = Annotated[
    Path | None, typer.Option("--cohort", help="Table of cases: means by its group and phase.")
]
Other = Annotated[
    Path | None,
    typer.Option("--compare", help="Other scores.csv, or folder of scores or label maps."),
]
Ranked = Annotated[
    list[str], typer.Argument(help="NAME=FOLDER each: scores.csv, and bench/<case>/bench.json.")
]
