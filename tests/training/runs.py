"""Small trainings from files to a model file, for the tests of sessions."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from flarekd import config
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.modelfile import read_weights
from flarekd.student.network import StudentUNet
from flarekd.student.windows import predict_logits
from flarekd.training.checkpoint import NAME as CHECKPOINT
from flarekd.training.log import LOG
from flarekd.training.plan import Plan
from flarekd.training.prepare import Grid, Source
from flarekd.training.session import run

COS, SIN = np.cos(0.28), np.sin(0.28)
GEOMETRY = Geometry(
    (28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
)
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
SETTINGS = config.load(
    config.builtin("quick"),
    [
        "student.epochs=2",
        "student.iterations=2",
        "student.batch=1",
        "student.patch=[8, 16, 16]",
        "student.oversize=[8, 16, 16]",
        "student.channels=[2, 2, 4, 4]",
        "student.class_weights=[]",
        "student.window=null",
        "student.checkpoint_minutes=0",
    ],
).student


class Screen:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    @contextmanager
    def progress(self, title):
        yield lambda *state: self.told.append(f"{title} {state[0]}/{state[1]}")

    def info(self, text):
        self.told.append(text)

    def warn(self, text):
        self.told.append(f"note: {text}")


def segment(network, volume):
    found = predict_logits(network, volume, (8, 16, 16))
    return found.logits.max(0).indices.to(torch.uint8).numpy()


def plan(missing=(), seed=4, initial=None, **changes):
    return Plan(
        role="student",
        network={"classes": 3, "channels": (2, 2, 4, 4), "strides": STRIDES},
        build=StudentUNet,
        settings=SETTINGS.model_copy(update=changes),
        grid=Grid((0.0, 0.0, 0.0), (8, 16, 16), tumor_only=False),
        segment=segment,
        labels=("background", "liver", "tumor"),
        label_ids=(0, 1, 2),
        inference={"step": 0.5},
        seed=seed,
        config=f"changes: {sorted(changes.items())}\n",
        missing=dict(missing),
        initial=initial,
    )


class Run:
    """A run folder and the cases to train on."""

    def __init__(self, path):
        self.folder, self.pictures, self.screen = path / "run", [], Screen()
        self.sources = [self._source(path / "data", f"case_{name}") for name in "ab"]

    def _source(self, folder, case):
        labels = np.zeros(GEOMETRY.shape_zyx, np.uint8)
        labels[2:9, 5:17, 6:20] = 1
        labels[4:8, 8:14, 10:17] = 2
        noise = np.random.default_rng(len(case)).normal(0, 20, labels.shape)
        paths = folder / f"{case}_0000.nii.gz", folder / f"{case}.nii.gz"
        write_volume(paths[0], Volume((noise + 60 * labels).astype(np.int16), GEOMETRY))
        write_labels(paths[1], LabelMap(labels, GEOMETRY))
        return Source(case, *paths)

    def train(self, how, resume="never", tensorboard=False):
        def draw(records, path):
            self.pictures.append([record["epoch"] for record in records])
            path.write_text("a picture")

        self.screen = Screen()
        device = torch.device("cpu")
        return run(
            how, self.sources, self.folder, device, resume=resume, screen=self.screen, draw=draw,
            tensorboard=tensorboard,
        )  # fmt: skip

    def state(self):
        """What lies in the run folder, and since when."""
        return {
            path.relative_to(self.folder).as_posix(): path.stat().st_mtime_ns
            for path in self.folder.rglob("*")
            if path.is_file()
        }


def interrupted(session, **changes):
    """A run stopped after its first epoch: the checkpoint is there, the model not."""
    model = session.train(plan(**changes))
    whole = read_weights(model)
    for name in ("model.safetensors", CHECKPOINT, LOG):
        (session.folder / name).unlink()

    class Stopped(Screen):
        @contextmanager
        def progress(self, title):
            def advance(done, total, note):
                if title.startswith("Training the") and done == 3:
                    raise KeyboardInterrupt

            yield advance

    with pytest.raises(KeyboardInterrupt):
        run(
            plan(**changes),
            session.sources,
            session.folder,
            torch.device("cpu"),
            resume="never",
            screen=Stopped(),
            draw=lambda *_: None,
        )
    assert not model.exists()
    return whole


def partly(session, *annotated):
    """The sources with the classes that each vouches for."""
    pairs = zip(session.sources, annotated, strict=True)
    session.sources = [replace(source, annotated=frozenset(ids)) for source, ids in pairs]
