"""flarekd infer against nnU-Net v2 2.8.1: the same weights, the same scan, the whole command.

Each run is a process of its own that reads a .nii.gz and writes one; the ways take turns. nnU-Net
runs as ``nnUNetv2_predict_from_modelfolder -device cpu --disable_tta`` with its default number of
processes, once with its default resampling and once with its own torch resampler, linear along all
axes as flarekd's. Both sides may use all cores. Results are kept line by line in ``runs.jsonl``: a
run that was cut short goes on where it stopped.

``--peer-python`` is the Python of an environment with ``nnunetv2==2.8.1`` and a CPU build of the
torch version that flarekd has.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import inference_setup as setup
from benchmarks.inference_table import table
from benchmarks.processes import measure
from flarekd.imaging.files import read_geometry, read_labels
from flarekd.modelfile import read_card, read_weights

CASE = "scan"
PEERS = ("nnunet", "nnunet-torch")
RUNTIMES = ("torch", "openvino", "onnx")
FEWER = ("body", "efficient", "paper")
WAYS = (*PEERS, *RUNTIMES, *(f"{runtime}-{rules}" for runtime in RUNTIMES for rules in FEWER))
DEFAULT_WAYS = (
    "nnunet",
    "nnunet-torch",
    "torch",
    "openvino",
    "openvino-body",
    "openvino-efficient",
)


def prepare(
    out: Path, slices: int, shrink: int, weights: Path | None, iterations: int
) -> dict[str, Any]:
    """Make scan, weights and nnU-Net's folders where they are missing; what they are."""
    setup.make_scan(
        out / "scans" / f"{CASE}_0000.nii.gz", out / "truth.nii.gz", slices, shrink=shrink
    )
    trained = weights or setup.train(out / "weights", iterations)
    checkpoint = setup.write_nnunet(trained, out / "nnunet", torch_resampler=False)
    setup.write_nnunet(trained, out / "nnunet-torch", torch_resampler=True)
    model = out / "imported.safetensors"
    if not model.exists():
        words = ["import-nnunet", "--checkpoint", checkpoint, "--out", model]
        subprocess.run(setup.flarekd_command(*words), check=True)
    ours, theirs = read_weights(trained), read_weights(model)
    if any((ours[name] != theirs[name]).any() for name in ours):
        message = "import-nnunet changed the weights"
        raise RuntimeError(message)
    return {
        "parameters": sum(tensor.numel() for tensor in theirs.values()),
        "weights": weights.name if weights else f"{iterations} steps of training",
    }


def command(out: Path, way: str, step: float, peer_python: Path) -> list[str]:
    """The command of one way, which writes to ``out/labels``."""
    target = out / "labels" / f"{way}-{step}"
    shutil.rmtree(target, ignore_errors=True)
    scan = out / "scans" / f"{CASE}_0000.nii.gz"
    if way in PEERS:
        program = peer_python.with_name("nnUNetv2_predict_from_modelfolder")
        words = ["-i", scan.parent, "-o", target, "-m", out / way, "-f", 0, "-device", "cpu"]
        words += ["-step_size", step, "--disable_tta", "--disable_progress_bar"]
        bare = ["env", "-u", "OMP_NUM_THREADS", f"PYTHONPATH={setup.ROOT}"]
        return [*bare, str(program), *map(str, words)]
    runtime, _, fewer = way.partition("-")
    words = ["infer", scan, "--model", out / "imported.safetensors", "--out", target]
    words += ["--device", "cpu", "--runtime", runtime, "--step", step]
    return setup.flarekd_command(*words, "--windows", fewer or "full")


def run_once(out: Path, way: str, step: float, peer_python: Path) -> dict[str, Any]:
    """One run of one way: seconds, memory, and what flarekd reports of itself.

    Raises:
        RuntimeError: If it failed or wrote nothing.
    """
    words = command(out, way, step, peer_python)
    log = out / "logs" / f"{way}-{step}.txt"
    run = measure(words, log)
    target = out / "labels" / f"{way}-{step}"
    if run.status or not (target / f"{CASE}.nii.gz").exists():
        message = f"{way} at step {step} failed with {run.status}; see {log}"
        raise RuntimeError(message)
    told: dict[str, Any] = {"way": way, "step": step, "wall_s": round(run.wall_s, 2)}
    told |= {"cpu_s": round(run.cpu_s, 2), "peak_mib": round(run.peak_mib)}
    if way not in PEERS:
        report = json.loads((target / "report.json").read_text(encoding="utf-8"))
        (case,) = report["cases"]
        told |= {key: case[key] for key in ("seconds", "windows_run", "windows_total")}
    return told


def bare_run(out: Path, runtime: str, calls: int = 4) -> dict[str, Any]:
    """Seconds of one window of the network and nothing else, in a process of its own."""
    words = setup.flarekd_command()[:-2]
    words += ["-m", "benchmarks.inference", "--bare", runtime, "--out", str(out)]
    done = subprocess.run([*words, "--calls", str(calls)], check=True, stdout=subprocess.PIPE)
    return {"way": f"bare-{runtime}", "step": 0, **json.loads(done.stdout.splitlines()[-1])}


def bare(out: Path, runtime: Any, calls: int) -> None:
    """Time the network alone, as `infer` runs it; the last line is JSON."""
    import torch

    from flarekd.inference.predictor import load
    from flarekd.student.network import StudentUNet

    model, device = out / "imported.safetensors", torch.device("cpu")
    ready = load(model, "student", StudentUNet, device, runtime)
    window = torch.randn(1, 1, *ready.card.patch)
    seconds = []
    with torch.inference_mode():
        ready.network(window)
        for _ in range(calls):
            began = time.monotonic()
            ready.network(window)
            seconds.append(time.monotonic() - began)
    print(json.dumps({"window_s": seconds}))


def facts(out: Path, ways: Iterable[str], steps: Iterable[float]) -> dict[str, Any]:
    """How alike the label maps are, and what sort of labels they hold.

    Foreground is what either of two maps calls an organ or a tumour.
    """
    truth = read_labels(out / "truth.nii.gz").array
    card = read_card(out / "imported.safetensors")
    spacing = read_geometry(out / "truth.nii.gz").spacing_zyx
    told: dict[str, Any] = {
        "agreement": {},
        "border_share": {"the truth": setup.border_share(truth, spacing, card)},
        "foreground_share": {"the truth": float((truth > 0).mean())},
        "dsc": {},
    }
    for step in steps:
        maps = {}
        for way in ways:
            path = out / "labels" / f"{way}-{step}" / f"{CASE}.nii.gz"
            if path.exists():
                maps[way] = read_labels(path)
        for peer in PEERS:
            for way in maps.keys() - set(PEERS) if peer in maps else ():
                ours, theirs = maps[way].array, maps[peer].array
                either = (ours > 0) | (theirs > 0)
                share = float((ours == theirs)[either].mean()) if either.any() else 1.0
                told["agreement"][f"{way} and {peer}, step {step}"] = share
        for way, found in maps.items():
            told["border_share"][f"{way}, step {step}"] = setup.border_share(
                found.array, found.geometry.spacing_zyx, card
            )
            told["foreground_share"][f"{way}, step {step}"] = float((found.array > 0).mean())
            told["dsc"][f"{way}, step {step}"] = setup.dice(found.array, truth)
    return told


def main() -> None:
    """Make what is needed, take turns, say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("inference-benchmark"))
    parser.add_argument("--peer-python", type=Path, help="with nnunetv2==2.8.1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=float, nargs="+", default=[1.0, 0.5])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=DEFAULT_WAYS)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--shrink", type=int, default=1, help="of 512 pixels, for a trial")
    parser.add_argument("--weights", type=Path, help="a student of the published shape")
    parser.add_argument("--iterations", type=int, default=400, help="of its training else")
    parser.add_argument("--bare", choices=RUNTIMES, help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, default=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    if arguments.bare:
        bare(out, arguments.bare, arguments.calls)
        return
    ways = list(arguments.ways)
    if arguments.peer_python is None and set(ways) & set(PEERS):
        parser.error("nnU-Net needs --peer-python, or leave its ways out")
    known = prepare(
        out, arguments.slices, arguments.shrink, arguments.weights, arguments.iterations
    )
    used = [runtime for runtime in RUNTIMES if any(way.startswith(runtime) for way in ways)]
    jobs: list[tuple[str, float]] = [(f"bare-{runtime}", 0) for runtime in used]
    jobs += [(way, step) for step in arguments.steps for way in ways]
    runs = measure_all(out, jobs, arguments.rounds, arguments.peer_python)
    known |= facts(out, ways, arguments.steps)
    (out / "facts.json").write_text(json.dumps(known, indent=2), encoding="utf-8")
    text = table(runs, known, arguments.steps)
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)


def measure_all(
    out: Path, jobs: list[tuple[str, float]], rounds: int, peer_python: Path
) -> list[dict[str, Any]]:
    """All rounds of all jobs, those that are in ``runs.jsonl`` left out; what is there then."""
    file = out / "runs.jsonl"
    runs = []
    if file.exists():
        runs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for number in range(rounds):
        for way, step in jobs:
            done = sum((run["way"], run["step"]) == (way, step) for run in runs)
            if done > number:
                continue
            if way.startswith("bare-"):
                run = bare_run(out, way.removeprefix("bare-"))
            else:
                run = run_once(out, way, step, peer_python)
            runs.append(run)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(run) + "\n")
            print(f"round {number + 1} of {rounds}: {json.dumps(run)}", flush=True)
    return runs


if __name__ == "__main__":
    main()
