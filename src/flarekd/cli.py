"""The command line: parse, load the configuration, call one stage. No logic, no torch at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flarekd import __version__
from flarekd.failures import Verbs
from flarekd.options import (
    Calibrate,
    Cohort,
    Command,
    ConfigFile,
    Device,
    DicomSeg,
    Extend,
    Form,
    FusionStrategy,
    Gpu,
    Images,
    Init,
    Interpolation,
    Jobs,
    Labels,
    MaxMemory,
    Model,
    Orientation,
    Other,
    Out,
    OutputNames,
    Plans,
    Predictions,
    Preset,
    Preview,
    Protocol,
    Ranked,
    References,
    Resume,
    Runtime,
    RuntimeName,
    Scans,
    Scoring,
    Seed,
    Settings,
    Statistics,
    Step,
    TensorBoard,
    Traits,
    Windows,
)

app = typer.Typer(
    name="flarekd",
    cls=Verbs,
    help="Abdominal CT: from partly labelled scans to a small model for 13 organs and tumours.\n\n"
    "Research software, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from flarekd import console

        console.result(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit


@app.command()
def demo(
    out: Out = Path("flarekd-demo"),
    preset: Annotated[Preset, typer.Option(help="quick: minutes on two cores.")] = Preset.quick,
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """The whole road on a synthetic cohort; ends with scores and pictures."""
    from flarekd import config, road

    name = "quick" if preset is Preset.quick else "flare23"
    resolved = config.load(config.builtin(name), [f"seed={seed}", *(settings or [])])
    road.demo(out, preset.value, resolved)


@app.command()
def run(
    config_file: Annotated[Path, typer.Option("--config", help="YAML file with a section 'data'.")],
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """All stages in order on your own folders, only what is not done yet."""
    from flarekd import config, road

    road.run(config.load(config_file, settings or []), device)


@app.command()
def phantom(
    out: Out,
    cases: Annotated[
        int, typer.Option(min=4, help="All cases: labelled, unlabelled, held out.")
    ] = 48,
    preset: Annotated[Preset, typer.Option(help="quick: coarse and small.")] = Preset.quick,
    seed: Seed = 0,
    jobs: Jobs = None,
) -> None:
    """Make a synthetic FLARE cohort: scans, partial labels, pseudo-labels and the truth."""
    from flarekd.parallel import cpu_count
    from flarekd.stages.phantom import make_phantoms

    make_phantoms(out, cases, preset.value, seed, jobs or cpu_count())


@app.command("group-data")
def group_data(
    images: Annotated[Path, typer.Option(help="Folder of scans.")],
    out: Annotated[Path, typer.Option(help="cohort.csv to write.")],
    labels: Annotated[Path | None, typer.Option(help="Folder of partial label maps.")] = None,
    unlabeled: Annotated[Path | None, typer.Option(help="Folder of scans without labels.")] = None,
    organ_pseudo: Annotated[
        Path | None, typer.Option(help="Folder of organ pseudo-labels.")
    ] = None,
) -> None:
    """Find out which classes each case has annotated (Table 1)."""
    from flarekd.stages.group_data import group_data as stage

    stage(images, labels, unlabeled, organ_pseudo, out)


def _resume(resume: bool, extend: bool) -> Literal["never", "must", "extend"]:
    return "extend" if extend else "must" if resume else "never"


@app.command("train-teacher")
def train_teacher(
    cohort: Cohort,
    out: Out,
    config_file: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    extend: Extend = False,
    tensorboard: TensorBoard = False,
    device: Device = "auto",
    init: Init = None,
) -> None:
    """Train the 2D attention U-Net on the cases with annotated tumours."""
    from flarekd import config
    from flarekd.stages.train_teacher import train_teacher as stage

    resolved = config.load(config_file or config.builtin("flare23"), settings or [])
    how = _resume(resume, extend)
    stage(cohort, out, resolved, device, how, tensorboard=tensorboard, init=init)


@app.command("pseudo-tumor")
def pseudo_tumor(cohort: Cohort, model: Model, out: Out, device: Device = "auto") -> None:
    """Label tumours with the teacher where no person did."""
    from flarekd.stages.pseudo_tumor import pseudo_tumor as stage

    stage(cohort, model, out, device)


@app.command()
def fuse(
    cohort: Cohort,
    tumor: Annotated[Path, typer.Option(help="Folder of tumour pseudo-labels.")],
    out: Out,
    strategy: Annotated[
        FusionStrategy, typer.Option(help="Eq. 3, 4, 5, or the ablation's baseline.")
    ] = FusionStrategy.paper,
) -> None:
    """Fuse partial labels, organ and tumour pseudo-labels into one label map a case."""
    from flarekd.stages.fuse import fuse_labels

    fuse_labels(cohort, tumor, out, strategy.value)


@app.command("train-student")
def train_student(
    cohort: Cohort,
    labels: Annotated[Path, typer.Option(help="Folder of fused labels.")],
    out: Out,
    config_file: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    extend: Extend = False,
    tensorboard: TensorBoard = False,
    device: Device = "auto",
    init: Init = None,
) -> None:
    """Train the small 3D U-Net on the fused labels."""
    from flarekd import config
    from flarekd.stages.train_student import train_student as stage

    resolved = config.load(config_file or config.builtin("flare23"), settings or [])
    stage(
        cohort,
        labels,
        out,
        resolved,
        device_name=device,
        resume=_resume(resume, extend),
        tensorboard=tensorboard,
        init=init,
    )


@app.command()
def infer(
    inputs: Scans,
    model: Model,
    out: Out,
    device: Device = "auto",
    runtime: Runtime = RuntimeName.auto,
    max_memory: MaxMemory = None,
    windows: Windows = None,
    step: Step = None,
    labels: Labels = Interpolation.linear,
    statistics: Statistics = False,
    preview: Preview = False,
    dicom_seg: DicomSeg = False,
) -> None:
    """Segment scans; each label map lies exactly on its scan."""
    from flarekd.report.beside import Beside
    from flarekd.stages.infer import Options
    from flarekd.stages.infer import infer as stage
    from flarekd.student.segment import WindowSettings

    how = WindowSettings(windows.value if windows else None, step, labels.value)
    beside = Beside(statistics, preview, dicom_seg)
    stage(inputs, model, out, Options(device, runtime.value, how, max_memory, beside))


@app.command()
def evaluate(
    predictions: Predictions,
    references: References,
    out: Out,
    protocol: Scoring = Protocol.flare23,
    images: Images = None,
    cohort: Traits = None,
    compare: Other = None,
) -> None:
    """Score label maps as FLARE does: DSC and NSD; also HD95, volumes, tumours one by one."""
    from flarekd.parallel import cpu_count
    from flarekd.stages.evaluate import evaluate as stage

    more = {"images": images, "cohort": cohort, "other": compare}
    stage(predictions, references, out, protocol.value, jobs=cpu_count(), **more)


@app.command()
def rank(models: Ranked, out: Out = Path("flarekd-rank")) -> None:
    """Rank models as FLARE does: each metric in each case, then averaged."""
    from flarekd.stages.rank import rank as stage

    stage(models, out)


@app.command(context_settings={"allow_interspersed_args": False})
def bench(
    command: Command,
    out: Out = Path("flarekd-bench"),
    interval: Annotated[float, typer.Option(min=0.01, help="Seconds between samples.")] = 0.1,
    repeat: Annotated[int, typer.Option(min=1, help="Runs; least, median, greatest.")] = 1,
    gpu: Gpu = None,
) -> None:
    """Measure any command as FLARE does: time, RAM, CPU, GPU memory. Ends as the command ends."""
    from flarekd.stages.bench import bench as stage

    raise typer.Exit(stage(command, out, interval, repeat, gpu))


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="File to write: *.onnx or *.xml (OpenVINO).")],
    form: Form = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights; needs --calibrate.")] = False,
    calibrate: Calibrate = None,
) -> None:
    """Write a model's network for other programs, checked against torch."""
    from flarekd.stages.export import export as stage

    stage(model, out, form=form, int8=int8, calibrate=calibrate)


@app.command("import-nnunet")
def import_nnunet(
    checkpoint: Annotated[Path, typer.Option(help="checkpoint_final.pth (v2) or *.model (v1).")],
    out: Annotated[Path, typer.Option("--out", help="Model file to write (*.safetensors).")],
    plans: Plans = None,
    labels: OutputNames = None,
    orientation: Orientation = None,
) -> None:
    """Turn a plain U-Net of nnU-Net v1 or v2 into a model file; no code in it is run."""
    from flarekd.stages.import_nnunet import import_nnunet as stage

    stage(checkpoint, plans, out, labels=labels, orientation=orientation)


def main() -> None:
    """Run the command line."""
    app()
