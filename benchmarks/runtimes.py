"""What a window costs in torch, OpenVINO and ONNX Runtime, and what it costs to come to the first.

The full-size student (5,644,256 parameters, windows 32×128×192) and the teacher (62,939,014, slices
512×512) of ``configs/flare23.yaml`` with random weights, on two CPU threads. Each runtime runs in a
process of its own; rounds alternate, so that a machine that slows down slows all alike:

- window: seconds a window, each process's median after its first;
- start, cold: from the import of flarekd's loader, torch imported, to the end of the first window,
  with no graph kept; warm: with it;
- peak: of the process's memory, warm.

Labels are compared with torch's once, on the same random window.

Run, from the repository's root, on a machine that does nothing else::

    python -m benchmarks.runtimes                    # 4 minutes on two cores
    python -m benchmarks.runtimes --network teacher  # 6 minutes
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from flarekd import config

RUNTIMES = ("torch", "openvino", "onnx")


def make_model(network: str, folder: Path) -> Path:
    """A model file of the paper's size with random weights."""
    from flarekd.modelfile import ModelCard, save_model
    from flarekd.student.network import StudentUNet
    from flarekd.teacher.network import TeacherUNet

    paper = config.load(config.builtin("flare23"))
    settings = paper.student if network == "student" else paper.teacher
    classes = 15 if network == "student" else 2
    arguments: dict[str, Any] = {"classes": classes, "channels": settings.channels}
    if network == "student":
        arguments["strides"] = paper.student.strides
    torch.manual_seed(0)
    build = StudentUNet if network == "student" else TeacherUNet
    card = ModelCard(
        role=network,
        network=arguments,
        labels=tuple(f"class_{i}" for i in range(classes)),
        label_ids=tuple(range(classes)),
        spacing=(4.0, 1.2, 1.2) if network == "student" else (0.0, 0.8164, 0.8164),
        patch=settings.patch,
        intensity=(-972.0, 294.0, 79.43, 142.0),
    )
    path = folder / f"{network}.safetensors"
    save_model(path, build(**arguments).state_dict(), card)
    return path


def measure(network: str, model: Path, runtime: str, windows: int) -> dict[str, Any]:
    """In this process: load, first window, `windows` more."""
    began = time.perf_counter()
    from flarekd.inference.predictor import load, window_size
    from flarekd.student.network import StudentUNet
    from flarekd.teacher.network import TeacherUNet

    build = StudentUNet if network == "student" else TeacherUNet
    ready = load(model, network, build, torch.device("cpu"), runtime)
    loaded = time.perf_counter()
    size = window_size(ready.card)
    window = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))
    seconds = []
    with torch.inference_mode():
        for _ in range(1 + windows):
            start = time.perf_counter()
            logits = ready.network(window)
            seconds.append(time.perf_counter() - start)
    labels = logits.argmax(1).byte().contiguous()
    save_file({"labels": labels}, model.with_name(f"{runtime}.labels"))
    return {
        "load_s": loaded - began,
        "start_s": loaded - began + seconds[0],
        "window_s": statistics.median(seconds[1:]),
        "peak_mib": _peak(),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(arguments: argparse.Namespace, model: Path, runtime: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.runtimes", "--network", arguments.network]
    command += ["--worker", runtime, "--model", str(model), "--windows", str(arguments.windows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=("student", "teacher"), default="student")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.worker:
        found = measure(arguments.network, arguments.model, arguments.worker, arguments.windows)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(arguments.network, Path(folder))
        report(arguments, model)


def report(arguments: argparse.Namespace, model: Path) -> None:
    """Measure in turn and print a table."""
    cold: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNTIMES}
    warm: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNTIMES}
    for number in range(arguments.rounds):
        for runtime in RUNTIMES:
            for path in model.parent.glob("*.graph-*"):
                path.unlink()
            cold[runtime].append(_run(arguments, model, runtime))
            warm[runtime].append(_run(arguments, model, runtime))
            print(f"round {number}, {runtime}: {warm[runtime][-1]}", file=sys.stderr, flush=True)
    reference = load_file(model.with_name("torch.labels"))["labels"]
    print(
        "| runtime | window, s: min / median / max | to torch | start cold, s | start warm, s |",
        end="",
    )
    print(" peak, MiB | labels as torch's |\n|---|---|---|---|---|---|---|")
    medians = {name: statistics.median(r["window_s"] for r in warm[name]) for name in RUNTIMES}
    for name in RUNTIMES:
        windows = [r["window_s"] for r in warm[name]]
        labels = load_file(model.with_name(f"{name}.labels"))["labels"]
        middle = {key: statistics.median(r[key] for r in warm[name]) for key in warm[name][0]}
        start = statistics.median(r["start_s"] for r in cold[name])
        print(
            f"| {name} | {min(windows):.2f} / {medians[name]:.2f} / {max(windows):.2f} | "
            f"{medians[name] / medians['torch']:.2f} | {start:.2f} | {middle['start_s']:.2f} | "
            f"{middle['peak_mib']:.0f} | "
            f"{float((labels == reference).float().mean()):.4%} |"
        )


if __name__ == "__main__":
    main()
