"""A student's training pass with plain tensors and with the channels last in memory.

`flarekd.device.lay_out` puts them last in float32 on processors with AVX2 and no AVX-512. Whether
that is right for a processor this tells: forward, loss and backward of one batch of noise, both
layouts in turn, so that a machine that slows down slows both.

Run, from the repository's root::

    export OMP_WAIT_POLICY=passive
    python -m benchmarks.channels_last                                             # half a minute
    python -m benchmarks.channels_last --config flare23 --rounds 2 --threads 1     # three minutes

Prints median and least milliseconds of wall and of CPU time a pass.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from flarekd import config
from flarekd.labels import NAMES
from flarekd.memory import keep_freed_memory
from flarekd.student.network import StudentUNet
from flarekd.training.loss import deep_supervision_loss

LAYOUTS = {"plain": torch.contiguous_format, "channels last": torch.channels_last_3d}


def main() -> None:
    """Take the time of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="quick", choices=["quick", "flare23"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    student = config.load(config.builtin(arguments.config), []).student
    images = torch.randn(student.batch, 1, *student.patch)
    target = torch.randint(0, len(NAMES), (student.batch, *student.patch))
    networks = {}
    for name, layout in LAYOUTS.items():
        network = StudentUNet(len(NAMES), student.channels, student.strides).train()
        networks[name] = network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's gap
    wall: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    cpu: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    for _ in range(arguments.rounds):
        for name, network in networks.items():
            began, worked = time.perf_counter(), time.process_time()
            loss, _ = deep_supervision_loss(network(images), target, student.deep_supervision)
            loss.backward()
            network.zero_grad()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - worked)
    for name in LAYOUTS:
        shown = [
            f"{kind} {1000 * statistics.median(taken):.0f} (least {1000 * min(taken):.0f})"
            for kind, taken in (("wall", wall[name]), ("CPU", cpu[name]))
        ]
        print(f"{name}: {', '.join(shown)} ms a pass")


if __name__ == "__main__":
    main()
