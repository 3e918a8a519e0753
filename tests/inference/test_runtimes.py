"""Runtimes answer as torch does, from the same model file; their graphs are kept, never trusted."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from flarekd.errors import InputError, UsageError
from flarekd.inference import graph, predictor
from flarekd.inference.exported import facts, save_openvino
from flarekd.inference.graph import kept, to_onnx
from flarekd.inference.parity import compare
from flarekd.inference.predictor import load, window_size
from flarekd.inference.runtimes import SMALL, TOGETHER, choose, start
from flarekd.modelfile import ModelCard, read_card, save_model
from flarekd.student.network import StudentUNet
from flarekd.student.windows import predict_logits
from flarekd.teacher.network import TeacherUNet
from flarekd.teacher.windows import predict_slices

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory):
    """A home of its own: graphs that are made go on record there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
BUILD = {"student": StudentUNet, "teacher": TeacherUNet}
NETWORK = {
    "student": {"classes": 15, "channels": (4, 8, 8, 8), "strides": STRIDES},
    "teacher": {"classes": 2, "channels": (4, 4, 8, 8, 8), "attention": "published"},
}
OTHERS = ["openvino", "onnx"]


def model(folder, role, **changes):
    """A model file whose weights and norms are none of those that a network starts with."""
    facts = {
        "role": role,
        "network": NETWORK[role],
        "labels": tuple(f"class_{i}" for i in range(NETWORK[role]["classes"])),
        "label_ids": tuple(range(NETWORK[role]["classes"])),
        "spacing": (4.0, 1.2, 1.2) if role == "student" else (0.0, 0.8, 0.8),
        "patch": (8, 16, 24) if role == "student" else (1, 32, 48),
        "intensity": (-200.0, 300.0, 50.0, 100.0),
    } | changes
    torch.manual_seed(0)
    state = BUILD[role](**facts["network"]).state_dict()
    for tensor in state.values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.add_(0.2 * torch.rand_like(tensor))  # norms; running variances stay positive
    path = folder / f"{role}.safetensors"
    save_model(path, state, ModelCard(**facts))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model file of each role, to be read; the graphs that tests make lie beside them."""
    return {role: model(tmp_path_factory.mktemp(role), role) for role in BUILD}


def windows(path, count=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, *window_size(read_card(path)), generator=generator)


def graphs(folder):
    return sorted(folder.glob("*.graph-*"))


@pytest.mark.parametrize(
    ("attention", "runtime"),
    [
        *product((None, "published"), OTHERS),
        *product(("equations", "none"), ["onnx"]),
    ],
)
def test_labels_are_those_of_torch(tmp_path, models, runtime, attention):
    role, path = "student", models["student"]
    if attention:
        role, network = "teacher", NETWORK["teacher"] | {"attention": attention}
        is_shared = network == NETWORK["teacher"]
        path = models["teacher"] if is_shared else model(tmp_path, "teacher", network=network)
    reference = load(path, role, BUILD[role], CPU)
    other = load(path, role, BUILD[role], CPU, runtime)
    assert (reference.runtime, other.runtime) == ("torch", runtime)
    assert other.sha256 == reference.sha256
    assert other.card == reference.card
    inputs = windows(path, 30).split(1)
    found = compare(reference.network, other.network, inputs)
    assert found.difference < 1e-3
    assert found.agreement >= 0.9999
    # the comparison would mean nothing if all labels were one
    with torch.no_grad():
        labels = reference.network(inputs[0]).argmax(1)
    assert labels.unique().numel() > 1
    assert found.foreground >= 0.999


@pytest.mark.parametrize(
    ("role", "axes", "runtime"),
    [("student", "RAI", "openvino"), ("student", "RAS", "onnx"), ("teacher", "LAS", "onnx")],
)
def test_a_network_of_other_axes_is_turned_round_within_its_graph(tmp_path, role, axes, runtime):
    path = model(tmp_path, role, orientation=axes)
    reference = load(path, role, BUILD[role], CPU).network
    other = load(path, role, BUILD[role], CPU, runtime).network
    image = windows(path, 2)
    with torch.no_grad():
        torch.testing.assert_close(other(image), reference(image), atol=1e-3, rtol=0)
        assert (reference(image) - reference.network(image)).abs().max() > 0.01


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_batch_is_its_windows_and_the_answers_stay_after_the_next(models, runtime):
    path = models["student"]
    network = load(path, "student", StudentUNet, CPU, runtime).network
    both = windows(path, 2)
    together = network(both)
    assert together.dtype == torch.float32
    assert together.shape == (2, 15, 8, 16, 24)
    first = network(both[:1])
    before = first.clone()
    second = network(both[1:])
    assert torch.equal(first, before)
    assert torch.equal(together, torch.cat((first, second)))


@pytest.mark.parametrize("count", [TOGETHER - 1, TOGETHER, 2 * TOGETHER + 1])
def test_small_windows_run_several_at_once_and_what_is_left_over_singly(tmp_path, count):
    path = model(tmp_path, "teacher")
    assert math.prod(window_size(read_card(path))) <= SMALL
    network = load(path, "teacher", TeacherUNet, CPU, "openvino").network
    given = windows(path, count)
    singly = torch.cat([network(window) for window in given.split(1)])
    torch.testing.assert_close(network(given), singly, atol=1e-4, rtol=0)


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_student_labels_a_whole_volume_alike(models, runtime):
    path = models["student"]
    volume = torch.randn(20, 40, 50, generator=torch.Generator().manual_seed(2))
    ours, theirs = (
        predict_logits(load(path, "student", StudentUNet, CPU, name).network, volume, (8, 16, 24))
        for name in ("torch", runtime)
    )
    assert theirs.windows_run == ours.windows_run > 8
    assert (theirs.logits.argmax(0) == ours.logits.argmax(0)).float().mean() >= 0.9999


def test_a_teacher_labels_slices_alike(models):
    path = models["teacher"]
    volume = torch.randn(5, 40, 70, generator=torch.Generator().manual_seed(2))
    ours, theirs = (
        list(
            predict_slices(load(path, "teacher", TeacherUNet, CPU, name).network, volume, (32, 48))
        )
        for name in ("torch", "openvino")
    )
    for one, other in zip(ours, theirs, strict=True):
        assert other.windows_run == one.windows_run
        torch.testing.assert_close(other.probability, one.probability, atol=1e-4, rtol=0)


def test_auto_is_openvino_on_the_cpu_and_torch_elsewhere():
    assert choose("auto", CPU) == "openvino"
    assert choose("auto", torch.device("cuda")) == "torch"
    assert choose("auto", torch.device("mps")) == "torch"
    assert choose("torch", CPU) == "torch"


def test_auto_is_the_cpu_for_an_exported_graph_wherever_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("graph.onnx", "graph.xml"):
        assert predictor.device_for(Path(name), "auto") == CPU
    assert predictor.device_for(Path("model.safetensors"), "auto") == torch.device("cuda")
    with pytest.raises(UsageError, match=r"use --device cpu$"):
        choose("openvino", torch.device("cuda"), ("openvino", "onnx"))


def test_auto_without_openvino_is_torch(monkeypatch):
    missing("openvino", monkeypatch)
    assert choose("auto", CPU) == "torch"
    assert choose("auto", CPU, ("openvino", "onnx")) == "onnx"


@pytest.mark.parametrize(("runtime", "module"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_a_runtime_that_is_not_installed_is_told_with_its_remedy(monkeypatch, runtime, module):
    missing(module, monkeypatch)
    with pytest.raises(
        UsageError, match=rf"'{module}' is not installed · pip install 'flarekd\[cpu\]'"
    ):
        choose(runtime, CPU)


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_runtime_of_cpus_is_refused_on_a_gpu(runtime):
    with pytest.raises(UsageError, match="runs on the CPU, not on 'cuda:0' · use --device cpu"):
        choose(runtime, torch.device("cuda:0"))


def missing(module, monkeypatch):
    """As if a module were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )


def test_the_graph_is_made_once_and_serves_both_runtimes(tmp_path, monkeypatch):
    path = model(tmp_path, "student")
    load(path, "student", StudentUNet, CPU, "onnx")
    (made,) = graphs(tmp_path)
    before = made.stat().st_mtime_ns
    monkeypatch.setattr(predictor, "to_onnx", None)  # would fail if it were called
    image = windows(path)
    ours, theirs = (load(path, "student", StudentUNet, CPU, name).network(image) for name in OTHERS)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert graphs(tmp_path) == [made]
    assert made.stat().st_mtime_ns == before


def test_a_graph_of_another_model_is_not_taken_and_is_deleted(tmp_path):
    path = model(tmp_path, "student")
    load(path, "student", StudentUNet, CPU, "onnx")
    (stale,) = graphs(tmp_path)
    (tmp_path / "other.safetensors.graph-1-2.onnx").write_bytes(b"of another model")
    state = StudentUNet(**NETWORK["student"]).state_dict()
    save_model(path, state, read_card(path))
    image = windows(path)
    with torch.no_grad():
        expected = load(path, "student", StudentUNet, CPU).network(image)
    found = load(path, "student", StudentUNet, CPU, "onnx").network(image)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert not stale.exists()
    assert len(graphs(tmp_path)) == 2
    assert (tmp_path / "other.safetensors.graph-1-2.onnx").exists()


def test_a_damaged_graph_is_made_anew(tmp_path):
    path = model(tmp_path, "student")
    image = windows(path)
    expected = load(path, "student", StudentUNet, CPU, "onnx").network(image)
    (made,) = graphs(tmp_path)
    whole = made.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF  # one weight: still a graph
    made.write_bytes(damaged)
    assert torch.equal(load(path, "student", StudentUNet, CPU, "onnx").network(image), expected)
    assert made.read_bytes() == whole


def test_a_graph_beside_the_model_that_this_user_did_not_make_is_not_taken(tmp_path, monkeypatch):
    path = model(tmp_path, "student")
    image = windows(path)
    expected = load(path, "student", StudentUNet, CPU, "onnx").network(image)
    (made,) = graphs(tmp_path)
    # another network under the very name that a graph of this model has
    key = made.name.rpartition("-")[0]
    torch.manual_seed(7)
    forged = to_onnx(StudentUNet(**NETWORK["student"]).eval())
    made.unlink()
    (tmp_path / f"{key}-{graph._digest(forged)}.onnx").write_bytes(forged)
    assert torch.equal(load(path, "student", StudentUNet, CPU, "onnx").network(image), expected)
    # nor the right one, to a user who has not made it
    monkeypatch.setenv("HOME", str(tmp_path / "another home"))
    calls = []
    monkeypatch.setattr(predictor, "to_onnx", lambda network: calls.append(1) or to_onnx(network))
    for _ in range(2):
        found = load(path, "student", StudentUNet, CPU, "onnx").network(image)
        assert torch.equal(found, expected)
    assert calls == [1]  # by the second time it has


def test_a_graph_is_of_the_model_it_was_recorded_for(tmp_path):
    path, cache = tmp_path / "model.safetensors", tmp_path / "cache"
    assert kept(path, "hash", lambda: b"graph", cache) == b"graph"
    assert kept(path, "other hash", lambda: b"another", cache) == b"another"
    (other,) = graphs(tmp_path)
    # recorded of the first, under the name of the second
    other.with_name(f"{other.name.rpartition('-')[0]}-{graph._digest(b'graph')}.onnx").write_bytes(
        b"graph"
    )
    other.unlink()
    assert kept(path, "other hash", lambda: b"made anew", cache) == b"made anew"


def test_a_graph_goes_to_the_users_cache_where_the_models_folder_takes_none(tmp_path):
    # a file stands where the folder would be: not writable, whoever asks
    blocked, cache = tmp_path / "blocked", tmp_path / "cache"
    blocked.write_text("")
    path = blocked / "folder" / "model.safetensors"
    assert kept(path, "hash", lambda: b"graph", cache) == b"graph"
    assert kept(path, "hash", lambda: b"another", cache) == b"graph"
    assert kept(path, "other hash", lambda: b"another", cache) == b"another"
    # two models of one name may share the user's cache
    assert len(graphs(cache)) == 2


@pytest.mark.parametrize("cache", [None, Path("blocked/folder")])
def test_without_a_place_of_the_users_own_nothing_is_kept(tmp_path, cache):
    (tmp_path / "blocked").write_text("")
    path = tmp_path / "model.safetensors"
    for content in (b"one", b"two"):
        assert kept(path, "hash", lambda c=content: c, cache and tmp_path / cache) == content
    assert not graphs(tmp_path)


def test_old_records_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "MOST_RECORDS", 2)
    for name in "abc":
        kept(tmp_path / name, name, lambda n=name: n.encode(), tmp_path / "cache")
    assert len((tmp_path / "cache" / graph.RECORDS).read_text(encoding="ascii").split()) == 2
    assert kept(tmp_path / "c", "c", lambda: b"new", tmp_path / "cache") == b"c"
    assert kept(tmp_path / "a", "a", lambda: b"new", tmp_path / "cache") == b"new"


def test_the_cache_is_where_the_system_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for platform, folder in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(graph.sys, "platform", platform)
        assert graph.user_cache() == tmp_path / "home" / folder / "flarekd"


def test_a_graph_takes_any_size_that_the_network_takes():
    import onnxruntime

    network = StudentUNet(**NETWORK["student"]).eval()
    session = onnxruntime.InferenceSession(to_onnx(network), providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 8, 16, 24), (2, 1, 16, 32, 16)):
        image = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        (found,) = session.run(None, {"image": image.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, network(image).numpy(), atol=1e-4)


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_model_that_torch_refuses_is_refused(tmp_path, runtime):
    path = model(tmp_path, "student")
    torn = NETWORK["student"] | {"classes": 3}
    save_model(path, StudentUNet(**torn).state_dict(), read_card(path))
    with pytest.raises(InputError, match="do not fit its card"):
        load(path, "student", StudentUNet, CPU, runtime)
    assert not graphs(tmp_path)


def test_comparing_tells_what_differs():
    ours = torch.tensor([[[[0.0, 0.0, 3.0, 0.0]], [[1.0, 1.0, 0.0, -1.0]]]])
    theirs = torch.tensor([[[[0.0, 1.5, 3.0, 0.0]], [[1.0, 1.0, 0.0, -1.0]]]])
    found = compare(lambda _: ours, lambda _: theirs, [torch.zeros(1, 1, 1, 4)])
    assert found.difference == 1.5
    assert found.agreement == 0.75
    assert found.foreground == 0.5
    with pytest.raises(ValueError, match="no window"):
        compare(lambda _: ours, lambda _: theirs, [])


ONE_AFTER_THE_OTHER = """
import signal, sys
import torch
from flarekd.inference.runtimes import start

signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
window = torch.zeros(1, 1, 32, 48)
first, second = (start("openvino", open(sys.argv[1], "rb").read(), (32, 48), 2) for _ in range(2))
first(window), second(window)
del first
second(window)
del second
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_is_handled_after_networks_of_openvino_are_gone(tmp_path):
    graph = tmp_path / "teacher.onnx"
    graph.write_bytes(to_onnx(TeacherUNet(**NETWORK["teacher"]).eval()))
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, graph], stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == b"handled\n"


def test_a_runtime_that_cannot_be_imported_is_told_as_such(tmp_path, monkeypatch):
    """One that lies there, but lacks a library of its own, say."""
    ready = load(model(tmp_path, "student"), "student", StudentUNet, CPU)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"'onnxruntime' cannot be imported: .* · install it"):
        start("onnx", to_onnx(ready.network), window_size(ready.card), 15)


LOOK = """
import sys, time
from pathlib import Path
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
{action}
time.sleep(1)  # reports come from a thread
print(*(name for name in seen if name.startswith(("os.fork", "socket.connect", "socket.getaddr"))))
"""
START = "from flarekd.inference.runtimes import openvino_core; openvino_core()"
READ = "from flarekd.inference.exported import read_card; read_card(Path(sys.argv[1]))"
WRITE = """
from flarekd.inference import parity
from flarekd.stages.export import export
parity.LEAST_AGREEMENT = 0.9  # random weights make near ties
export(
    Path(sys.argv[1]).with_name("student.safetensors"), Path(sys.argv[1]).with_name("another.xml"),
    form=None, int8=False, calibrate=None,
)
"""


@pytest.fixture(scope="module")
def written_xml(tmp_path_factory):
    """A student as OpenVINO has it, its model file beside it."""
    path = model(tmp_path_factory.mktemp("xml"), "student")
    ready = load(path, "student", StudentUNet, CPU)
    told = facts(ready.card, (2, 8, 8), ready.sha256, "float32")
    save_openvino(to_onnx(ready.network), told, path.with_suffix(".xml"))
    return path.with_suffix(".xml")


@pytest.mark.parametrize("action", [START, READ, WRITE], ids=["start", "read", "write"])
def test_openvino_reports_to_nobody_and_leaves_nothing_in_the_home(tmp_path, written_xml, action):
    variables = {**os.environ, "HOME": str(tmp_path)}
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # where it would not report anyway
        variables.pop(name, None)
    command = [sys.executable, "-c", LOOK.format(action=action), written_xml]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert list(tmp_path.iterdir()) == []
