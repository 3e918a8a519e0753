"""Sound small models, graphs and nnU-Net files for ``fuzz.py``, and what reads them.

What loads is run, too: on a scan of a few voxels, which must come to an end.
"""

from __future__ import annotations

import io
import json
import pickle
from collections import OrderedDict
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from flarekd.errors import InputError
from flarekd.imaging.volume import Geometry, Volume

NETWORK = {"channels": (2, 2), "strides": ((1, 2, 2),)}
HU = {"percentile_00_5": -110.0, "percentile_99_5": 190.0, "mean": 40.0}


def _card() -> Any:
    from flarekd.modelfile import ModelCard

    spread = dict.fromkeys(("p5", "median", "p95"), (4.0, 1.0, 1.0))
    return ModelCard(
        role="student",
        network={"classes": 2, **NETWORK},
        labels=("background", "tumor"),
        label_ids=(0, 14),
        spacing=(4.0, 1.2, 1.2),
        patch=(8, 16, 16),
        intensity=(-972.0, 294.0, 79.43, 142.0),
        inference={"step": 0.5, "windows": "efficient"},
        fingerprint={"cases": 2, "spacing_mm": spread, "intensity": {"mean": 40.0, "sd": 70.0}},
        training={"dsc": 0.5},
    )


def _network() -> Any:
    import torch

    from flarekd.student.network import StudentUNet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return StudentUNet(2, **NETWORK).eval()


def model(folder: Path) -> list[tuple[bytes, bytes]]:
    """A model file: its header, without the length before it, and its weights."""
    from flarekd.modelfile import save_model

    path = folder / "sound.safetensors"
    save_model(path, _network().state_dict(), _card())
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return [(content[8:end], content[end:])]


def with_length(head: bytes, body: bytes) -> bytes:
    """A model file of its header and its weights."""
    return len(head).to_bytes(8, "little") + head + body


def card(_folder: Path) -> list[tuple[bytes, bytes]]:
    """Cards as JSON."""
    teacher = {
        "role": "teacher",
        "network": {"classes": 2, "channels": (2, 2, 2), "attention": "none"},
        "spacing": (0.0, 1.2, 1.2),
        "patch": (1, 16, 16),
        "inference": {"probe": "center", "min_foreground": 1, "threshold": 0.9, "min_ml": 2.0},
    }
    told = _card().model_dump(mode="json")
    return [(json.dumps(one).encode(), b"") for one in (told, told | teacher)]


def read_card(path: Path) -> object:
    """Read a card, and build its network without memory."""
    import torch

    from flarekd.modelfile import parse_card
    from flarekd.student.network import StudentUNet
    from flarekd.teacher.network import TeacherUNet

    found = parse_card(path.read_bytes().decode(errors="replace"), path)
    build: Any = StudentUNet if found.role == "student" else TeacherUNet
    with torch.device("meta"):
        try:
            return found.looking, found.statistics, build(**found.network)
        except (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError):
            return None  # `predictor.load` refuses it so


def read_model(path: Path) -> object:
    """Load a student and run it."""
    import torch

    from flarekd.modelfile import read_card, read_weights
    from flarekd.student.segment import Student

    torch.set_num_threads(1)
    read_card(path)
    read_weights(path)
    student = Student.load(path, device=torch.device("cpu"), runtime="torch")
    return _run(student)


def _run(student: Any) -> object:
    """What `infer` does with a scan; a ValueError costs it that scan, and is told."""
    try:
        return student.segment(student.prepare(_scan()))
    except ValueError as error:
        raise InputError(str(error)) from error


def _scan() -> Volume:
    array = np.arange(18, dtype=np.int16).reshape(2, 3, 3) * 20
    return Volume(array, Geometry((3, 3, 2), (1.2, 1.2, 4.0)))


def graph(_folder: Path) -> list[tuple[bytes, bytes]]:
    """An exported network."""
    from flarekd.inference.exported import facts, with_facts
    from flarekd.inference.graph import divisors, to_onnx

    network = _network()
    told = facts(_card(), divisors(network), "0" * 64, "float32")
    return [(with_facts(to_onnx(network), told), b"")]


def read_graph(path: Path, runtime: Any) -> object:
    """Load an exported network and run it."""
    import torch

    from flarekd.student.segment import Student

    torch.set_num_threads(1)
    student = Student.load(path, device=torch.device("cpu"), runtime=runtime)
    return _run(student)


def plans_json(_folder: Path) -> list[tuple[bytes, bytes]]:
    """Plans of nnU-Net v2."""
    blocks = {
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    full = {
        "spacing": [4.0, 1.2, 1.2],
        "patch_size": [8, 16, 16],
        "normalization_schemes": ["CTNormalization"],
        "architecture": {"network_class_name": "unet.PlainConvUNet", "arch_kwargs": blocks},
    }
    told = {
        "transpose_forward": [0, 1, 2],
        "image_reader_writer": "SimpleITKIO",
        "foreground_intensity_properties_per_channel": {"0": {**HU, "std": 70.0}},
        "configurations": {"low": full, "3d_fullres": {"inherits_from": "low"}},
    }
    return [(json.dumps(told).encode(), b"")]


def read_plans_json(path: Path) -> object:
    """Read plans of v2."""
    from flarekd.nnunet.plans import read_plans

    said = {"configuration": "3d_fullres", "dataset_json": {"labels": {"background": 0, "a": 1}}}
    content = {"network_weights": {}, "init_args": said, "trainer_name": "nnUNetTrainer"}
    return read_plans(path, content)


def plans_pickle(_folder: Path) -> list[tuple[bytes, bytes]]:
    """Plans of nnU-Net v1, in three protocols."""
    stage = {"current_spacing": np.array([4.0, 1.2, 1.2]), "patch_size": np.array([8, 16, 16])}
    plans = {
        "num_modalities": 1,
        "normalization_schemes": OrderedDict([(0, "CT")]),
        "use_mask_for_norm": OrderedDict([(0, False)]),
        "transpose_forward": [0, 1, 2],
        "preprocessor_name": "GenericPreprocessor",
        "plans_per_stage": {0: stage},
        "dataset_properties": {"intensityproperties": {0: {**HU, "sd": np.float64(70.0)}}},
    }
    return [(pickle.dumps(plans, protocol=number), b"") for number in (2, 3, 4)]


def read_plans_pickle(path: Path) -> object:
    """Read plans of v1."""
    from flarekd.nnunet.plans import read_plans

    return read_plans(path, {"state_dict": {}})


def checkpoint(_folder: Path) -> list[tuple[bytes, bytes]]:
    """Weights of nnU-Net v2, as torch packs them now and as it did."""
    import torch

    weights = OrderedDict(
        (name, torch.zeros(shape))
        for name, shape in {
            "encoder.stages.0.0.convs.0.conv.weight": (2, 1, 1, 3, 3),
            "encoder.stages.0.0.convs.0.conv.bias": (2,),
            "encoder.stages.0.0.convs.0.norm.weight": (2,),
            "encoder.stages.0.0.convs.0.norm.bias": (2,),
            "encoder.stages.1.0.convs.0.conv.weight": (2, 2, 3, 3, 3),
            "encoder.stages.1.0.convs.0.conv.bias": (2,),
            "encoder.stages.1.0.convs.0.norm.weight": (2,),
            "encoder.stages.1.0.convs.0.norm.bias": (2,),
            "decoder.transpconvs.0.weight": (2, 2, 1, 2, 2),
            "decoder.transpconvs.0.bias": (2,),
            "decoder.stages.0.convs.0.conv.weight": (2, 4, 3, 3, 3),
            "decoder.stages.0.convs.0.conv.bias": (2,),
            "decoder.stages.0.convs.0.norm.weight": (2,),
            "decoder.stages.0.convs.0.norm.bias": (2,),
            "decoder.seg_layers.0.weight": (2, 2, 1, 1, 1),
            "decoder.seg_layers.0.bias": (2,),
        }.items()
    )
    said = {"configuration": "3d_fullres", "dataset_json": {"labels": {"background": 0, "a": 1}}}
    saved = {"network_weights": weights, "init_args": said, "trainer_name": "nnUNetTrainer"}
    packed = []
    for in_zip in (True, False):
        file = io.BytesIO()
        torch.save(saved, file, _use_new_zipfile_serialization=in_zip)
        packed.append((file.getvalue(), b""))
    return packed


def read_checkpoint(path: Path) -> object:
    """Import a checkpoint whose plans are sound."""
    from flarekd.stages.import_nnunet import import_nnunet

    plans = path.with_name("plans.json")
    plans.write_bytes(plans_json(path.parent)[0][0])
    out = path.with_name("out.safetensors")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return import_nnunet(path, plans, out, labels=None, orientation=None)


def dataset_json(_folder: Path) -> list[tuple[bytes, bytes]]:
    """Both ways that dataset.json names labels."""
    old = {"name": "a", "labels": {"0": "background", "1": "kidney", "2": "tumour"}}
    new = {"labels": {"background": 0, "kidney": 1, "tumour": 2}}
    return [(json.dumps(one).encode(), b"") for one in (old, new)]


def read_dataset_json(path: Path) -> object:
    """Read a dataset.json as groups.yaml names it."""
    from flarekd.groups_file import read_rules

    rules = path.with_name("groups.yaml")
    rules.write_text(f"datasets: [{{ids: {path.name}}}]", encoding="utf-8")
    return read_rules(rules)
