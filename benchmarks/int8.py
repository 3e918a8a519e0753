r"""What int8 costs: DSC of a model's runtimes, and of its exported int8 network, on held-out scans.

Every case is segmented by each runtime with the model's own windows and scored by the corrected
protocol. Seconds are those of the network's windows, the ways in turn for each case.

Run, from the repository's root, on what ``flarekd demo`` leaves::

    flarekd export --model demo/student/model.safetensors --out demo/int8.onnx --int8 \
        --calibrate demo/cohort/imagesUnlabeled
    python -m benchmarks.int8 --demo demo

    python -m benchmarks.int8 --windows 7    # seconds of the full-size student, random weights
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from flarekd.imaging.files import list_scans, read_labels, read_volume
from flarekd.imaging.volume import Volume
from flarekd.inference import predictor
from flarekd.inference.graph import to_onnx
from flarekd.inference.int8 import quantise
from flarekd.inference.predictor import Predictor
from flarekd.inference.runtimes import start
from flarekd.inference.slabs import labels_from_logits
from flarekd.metrics import dice
from flarekd.student.network import StudentUNet
from flarekd.student.windows import predict_logits

CPU = torch.device("cpu")


def segment(ready: Predictor, volume: Volume) -> tuple[np.ndarray, float]:
    """Ids (z, y, x), and seconds of the windows."""
    seen = ready.network_input(volume)
    step = ready.card.looking.step
    began = time.perf_counter()
    found = predict_logits(ready.network, seen, ready.card.patch, step=step)
    took_s = time.perf_counter() - began
    outputs = labels_from_logits(found.logits, volume.array.shape)
    return np.asarray(ready.card.label_ids, np.uint8)[outputs], took_s


def full_size(windows: int) -> None:
    """Seconds a window of the full-size student on two threads, the four ways in turn."""
    torch.set_num_threads(2)
    patch = (32, 128, 192)
    graph = to_onnx(StudentUNet(15).eval())
    graphs = {"float32": graph, "int8": quantise(graph, [torch.randn(1, 1, *patch)])}
    ways = {
        f"{name}, {runtime}": start(runtime, content, patch, 15)
        for name, content in graphs.items()
        for runtime in ("openvino", "onnx")
    }
    window = torch.randn(1, 1, *patch)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + windows):
        for way, network in ways.items():
            began = time.perf_counter()
            network(window)
            seconds[way].append(time.perf_counter() - began)
    for way, (_, *after) in seconds.items():  # the first one plans
        print(f"| {way} | {min(after):.2f} / {statistics.median(after):.2f} / {max(after):.2f} |")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, help="what flarekd demo left")
    parser.add_argument("--windows", type=int, help="measure the full-size student instead")
    parser.add_argument("--int8", type=Path, help="the exported int8 network; DEMO/int8.onnx")
    arguments = parser.parse_args()
    if arguments.windows:
        full_size(arguments.windows)
        return
    if arguments.demo is None:
        parser.error("give --demo or --windows")
    model = arguments.demo / "student" / "model.safetensors"
    int8 = arguments.int8 or arguments.demo / "int8.onnx"
    asked = [(model, "torch"), (model, "openvino"), (int8, "openvino"), (int8, "onnx")]
    ways = {
        f"{path.suffix} {runtime}": predictor.load(path, "student", StudentUNet, CPU, runtime)
        for path, runtime in asked
    }
    ids = next(iter(ways.values())).card.label_ids[1:]
    scores = {way: np.full((0, len(ids)), np.nan) for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    agree: dict[str, list[float]] = {way: [] for way in ways}
    references = list_scans(arguments.demo / "cohort" / "labelsVal")
    for case, path in list_scans(arguments.demo / "cohort" / "imagesVal").items():
        volume, truth = read_volume(path), read_labels(references[case]).array
        first: np.ndarray | None = None
        for way, ready in ways.items():
            labels, took_s = segment(ready, volume)
            first = labels if first is None else first
            # a class that neither has says nothing of the network
            row = [dice(labels == i, truth == i) if (truth == i).any() else np.nan for i in ids]
            scores[way] = np.vstack((scores[way], row))
            seconds[way].append(took_s)
            agree[way].append(float((labels == first).mean()))
    tumor = ids.index(14)
    print("| network, runtime | organs DSC | tumour DSC | labels as torch's | seconds a case |")
    print("|---|---|---|---|---|")
    for way in ways:
        organs = np.nanmean(np.delete(scores[way], tumor, axis=1))
        print(
            f"| {way} | {organs:.4f} | {np.nanmean(scores[way][:, tumor]):.4f} | "
            f"{np.mean(agree[way]):.4%} | {np.median(seconds[way]):.2f} |"
        )


if __name__ == "__main__":
    main()
