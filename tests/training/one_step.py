"""One training step's gradients, alone or as one of several: ``STORE OUT BATCH [partly]``.

The network of instance norms has no randomness, so two ranks with
batch b must find what one finds with batch 2b.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from flarekd import config
from flarekd.imaging import store
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.student.network import StudentUNet
from flarekd.training.batches import Batches
from flarekd.training.loop import Trainer
from flarekd.training.marginal import masks
from flarekd.training.ranks import joined

PARTLY = {"case0": (1,), "case1": (2,), "case2": (1, 2)}
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))


def main():
    """Write the gradients, what the step returned and the epoch's record of it."""
    folder, out, batch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    cases = [store.open_case(path) for path in sorted(folder.glob("*.b2nd"))]
    settings = config.load(config.builtin("quick")).student.model_copy(
        update={
            "batch": batch,
            "precision": "fp32",
            "patch": (8, 16, 16),
            "oversize": (8, 20, 20),
            "foreground": 0.33,
            "class_weights": (1.0, 2.0, 5.0),
        }
    )
    with joined(torch.device("cpu")) as (ranks, device):
        torch.manual_seed(0)
        network = StudentUNet(3, channels=(4, 8, 8, 8), strides=STRIDES)
        trainer = Trainer(network, settings, out.parent, 5, "identity", device, ranks)
        statistics = IntensityStatistics(-100, 300, 60, 80)
        known = {}
        if sys.argv[4:] == ["partly"]:  # each class in some of the samples alone
            known = masks(PARTLY, PARTLY, 3)
        make = Batches(cases, settings, statistics, 5, ranks=ranks, annotated=known)
        loss, dice, _ = trainer._backward(make(3), 1)
        if ranks.is_first:
            grads = {name: p.grad.contiguous() for name, p in network.named_parameters()}
            save_file({**grads, "loss": loss[None], "dice": dice}, out)
        ranks.wait()  # one that left before the others now and then died of SIGABRT on its way out
