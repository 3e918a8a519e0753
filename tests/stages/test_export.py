"""`export`: another program gets what torch would have said, or no file at all."""

from __future__ import annotations

import json
import re
import resource
import shutil
import sys
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.end_to_end.command import flarekd

from flarekd.errors import FlarekdError, InputError, UsageError
from flarekd.imaging.files import read_volume, write_volume
from flarekd.imaging.volume import Geometry, Volume
from flarekd.inference import parity
from flarekd.inference.predictor import load
from flarekd.inference.runtimes import openvino_core
from flarekd.inference.windows import pad_to_patch
from flarekd.labels import NAMES
from flarekd.modelfile import ModelCard, file_hash, read_card, save_model
from flarekd.stages import export as stage
from flarekd.stages.export import export
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet

CPU = torch.device("cpu")
DOCS = Path(__file__).parents[2] / "docs" / "runtimes.md"
BUILD = {"student": StudentUNet, "teacher": TeacherUNet}


def model(folder, role="student", **changes):
    torch.manual_seed(0)
    strides = ((1, 2, 2), (2, 2, 2))
    network = {
        "student": {"classes": 15, "channels": (4, 8, 16), "strides": strides},
        "teacher": {"classes": 2, "channels": (4, 8, 8, 8, 8), "attention": "published"},
    }[role]
    facts = {
        "role": role,
        "network": network,
        "labels": NAMES if role == "student" else ("background", "tumor"),
        "label_ids": tuple(range(15)) if role == "student" else (0, 14),
        "spacing": (6.0, 4.0, 4.0) if role == "student" else (0.0, 4.0, 4.0),
        "patch": (8, 24, 32) if role == "student" else (1, 32, 48),
        "intensity": (-200.0, 300.0, 50.0, 100.0),
        "orientation": "RAI",
    }
    path = folder / f"{role}.safetensors"
    save_model(path, BUILD[role](**network).state_dict(), ModelCard(**facts | changes))
    return path


@pytest.fixture(scope="module", autouse=True)
def one_phantom():
    """The phantom that every export is checked on is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "make_case", cache(stage.make_case))
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A student's file, and by ending where it lies exported, alone in a folder; to be read."""
    folder = tmp_path_factory.mktemp("exported")
    path = model(folder)
    found = {ending: folder / ending[1:] / f"network{ending}" for ending in (".onnx", ".xml")}
    for out in found.values():
        export(path, out, form=None, int8=False, calibrate=None)
    return path, found


def scans(folder, count=3):
    for index in range(count):
        z, y, x = np.meshgrid(np.arange(20), np.arange(60), np.arange(60), indexing="ij")
        noise = np.random.default_rng(index).normal(0, 40, z.shape)
        hu = 300 * np.sin(x / 7 + index) * np.cos(y / 9 + z / 5) + noise
        path = folder / f"case_{index}_0000.nii.gz"
        write_volume(path, Volume(hu.astype(np.int16), Geometry((60, 60, 20), (4.0, 4.0, 6.0))))
    return folder


def left(folder):
    """What is in a folder; one that was made and stayed empty is gone, too."""
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_onnx_carries_the_card_along_lps_and_what_sizes_it_takes(tmp_path, role):
    path = model(tmp_path, role)
    out = tmp_path / "out" / "network.onnx"
    export(path, out, form=None, int8=False, calibrate=None)
    assert left(out.parent) == ["network.onnx"]
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    expected = read_card(path).model_copy(update={"orientation": "LPS"})
    assert ModelCard.model_validate_json(told["flarekd"]) == expected
    assert told["flarekd.divisor"] == ("2 4 4" if role == "student" else "16 16")
    assert told["flarekd.model_sha256"] == file_hash(path)
    assert told["flarekd.precision"] == "float32"
    onnx.checker.check_model(onnx.load(out))


def test_openvino_carries_the_same(tmp_path, exported):
    openvino_core()  # bars its reports
    import openvino

    path, out = exported[0], tmp_path / "out" / "network.xml"
    export(path, out, form="openvino", int8=False, calibrate=None)
    assert left(out.parent) == ["network.bin", "network.xml"]
    network = openvino.Core().read_model(out)
    told = json.loads(network.get_rt_info(["flarekd", "card"]).astype(str))
    assert told["label_ids"] == list(range(15))
    assert told["intensity"] == [-200.0, 300.0, 50.0, 100.0]
    assert network.get_rt_info(["flarekd", "divisor"]).astype(str) == "2 4 4"
    window = torch.randn(1, 1, 8, 24, 32, generator=torch.Generator().manual_seed(1))
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # bf16 else, where the processor has it
    found = openvino.compile_model(network, "CPU", exact)([window.numpy()])[0]
    with torch.no_grad():
        expected = load(path, "student", StudentUNet, CPU).network(window)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("form", "runtime"), [(".onnx", "openvino"), (".onnx", "onnx"), (".xml", "openvino")]
)
def test_flarekd_runs_what_it_exported(exported, form, runtime):
    path, out = exported[0], exported[1][form]
    ready = load(out, "student", StudentUNet, CPU, runtime)
    assert ready.runtime == runtime
    assert ready.card == read_card(path).model_copy(update={"orientation": "LPS"})
    window = torch.randn(1, 1, 8, 24, 32, generator=torch.Generator().manual_seed(1))
    found = parity.compare(load(path, "student", StudentUNet, CPU).network, ready.network, [window])
    assert found.agreement >= 0.9999
    with pytest.raises(UsageError, match="torch cannot run an exported graph"):
        load(out, "student", StudentUNet, CPU, "torch")
    with pytest.raises(InputError, match="is a student, a teacher is needed"):
        load(out, "teacher", TeacherUNet, CPU, runtime)


@pytest.mark.parametrize("name", ["network.onnx", "network.xml"])
@pytest.mark.parametrize("content", [b"no graph", b"", b"<net></net>"])
def test_what_is_no_exported_network_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "network.bin").write_bytes(b"")
    with pytest.raises(InputError, match=name):
        load(tmp_path / name, "student", StudentUNet, CPU, "openvino")


def test_a_stop_between_the_two_files_of_openvino_leaves_no_pair_of_two_networks(
    tmp_path, exported, monkeypatch
):
    out = shutil.copytree(exported[1][".xml"].parent, tmp_path / "xml") / "network.xml"
    rename = Path.replace

    def stop(path, target):
        if target == out:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        export(exported[0], out, form=None, int8=False, calibrate=None)
    assert left(out.parent) == ["network.bin"]


def test_the_two_files_of_openvino_belong_together(tmp_path, exported):
    out = shutil.copytree(exported[1][".xml"].parent, tmp_path / "xml") / "network.xml"
    before = load(out, "student", StudentUNet, CPU, "auto").sha256
    weights = out.with_suffix(".bin")
    changed = bytearray(weights.read_bytes())
    changed[100] ^= 1
    weights.write_bytes(changed)
    assert load(out, "student", StudentUNet, CPU, "auto").sha256 != before
    weights.unlink()
    with pytest.raises(InputError, match=r"network.bin' is missing · keep the .bin beside"):
        load(out, "student", StudentUNet, CPU, "auto")
    with pytest.raises(UsageError, match="onnx cannot run an exported graph of this format"):
        load(out, "student", StudentUNet, CPU, "onnx")


def test_the_example_of_the_docs_gives_flarekds_labels(tmp_path, exported, monkeypatch):
    text = DOCS.read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    path = exported[0]
    shutil.copyfile(exported[1][".onnx"], tmp_path / "student.onnx")
    volume = read_volume(scans(tmp_path / "scans", 1) / "case_0_0000.nii.gz")
    names = {"hu": volume.array}
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/runtimes.md", "exec"), names)
    ready = load(path, "student", StudentUNet, CPU)
    padded, _ = pad_to_patch(ready.network_input(volume), (8, 24, 32))
    with torch.no_grad():
        expected = ready.network(padded[None, None, :8, :24, :32])[0].argmax(0)
    assert len(expected.unique()) > 5
    assert (names["labels"] == expected.numpy()).mean() >= 0.9999
    assert names["labels"].dtype == np.uint8
    imported = set(re.findall(r"^(?:import|from) (\w+)", example, re.MULTILINE))
    assert imported <= {"numpy", "onnxruntime"} | sys.stdlib_module_names


@pytest.mark.parametrize("out", ["network.onnx", "network.xml"])
def test_a_file_that_cannot_be_written_is_named_and_not_left_behind(tmp_path, out):
    path = model(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises((InputError, OSError), match=rf"out/{out}"):
            export(path, tmp_path / "out" / out, form=None, int8=False, calibrate=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize("out", ["network.onnx", "network.xml"])
def test_what_does_not_agree_with_torch_is_not_left_behind(tmp_path, monkeypatch, out):
    path = model(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / out).write_text("of yesterday")
    true = stage.to_onnx

    def wrong(network):  # its outputs are shuffled
        head = network.network.heads[0].weight.data
        network.network.heads[0].weight.data = head.roll(1, 0)
        graph = true(network)
        network.network.heads[0].weight.data = head
        return graph

    monkeypatch.setattr(stage, "to_onnx", wrong)
    with pytest.raises(FlarekdError, match=r"agrees with torch on .*% of the labels") as caught:
        export(path, tmp_path / "out" / out, form=None, int8=False, calibrate=None)
    assert "nothing was written" in str(caught.value)
    assert left(tmp_path / "out") == [out]
    assert (tmp_path / "out" / out).read_text() == "of yesterday"


def test_int8_is_small_and_near_what_torch_says(tmp_path, monkeypatch):
    path = model(tmp_path, orientation="LPS")
    folder = scans(tmp_path / "scans")
    out = tmp_path / "int8.onnx"
    # random weights make near ties everywhere, which no trained network does
    monkeypatch.setattr(stage, "LEAST_INT8", 0.6)
    export(path, out, form=None, int8=True, calibrate=folder)
    graph = onnx.load(out).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    quantised = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    sources = {output: node for node in graph.node for output in node.output}
    assert len(quantised) > 10
    *quantised, head = quantised
    assert head.input[1] in weights  # the logits stay float
    for node in quantised:
        dequantise = sources[node.input[1]]
        assert dequantise.op_type == "DequantizeLinear"
        assert weights[dequantise.input[0]].data_type == onnx.TensorProto.INT8
    ready = load(out, "student", StudentUNet, CPU, "onnx")
    truth = load(path, "student", StudentUNet, CPU)
    seen = truth.network_input(read_volume(folder / "case_2_0000.nii.gz"))
    found = parity.compare(truth.network, ready.network, [seen[None, None, :8, :24, :32]])
    assert 0.6 < found.agreement < 1
    assert found.difference > 1e-3


def test_scans_that_cannot_be_read_are_named_and_passed_over(tmp_path, monkeypatch, capsys):
    path = model(tmp_path, orientation="LPS")
    folder = scans(tmp_path / "scans")
    (folder / "aa.nii.gz").write_bytes(b"torn")
    hu = np.full((20, 60, 60), np.nan, np.float32)
    write_volume(folder / "zz.nii.gz", Volume(hu, Geometry((60, 60, 20), (4.0, 4.0, 6.0))))
    monkeypatch.setattr(stage, "LEAST_INT8", 0.6)
    export(path, tmp_path / "int8.onnx", form=None, int8=True, calibrate=folder)
    assert (tmp_path / "int8.onnx").exists()
    told = "".join(capsys.readouterr().err.split())
    assert f"{folder}/aa.nii.gz:passedover:" in told
    assert f"{folder}/zz.nii.gz:passedover:" in told
    for name in ("case_0_0000", "case_1_0000", "case_2_0000"):
        (folder / f"{name}.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no scan in '.*scans' can be used · give scans"):
        export(path, tmp_path / "none.onnx", form=None, int8=False, calibrate=folder)


def test_one_scan_will_do(tmp_path, capsys):
    path = model(tmp_path)
    scan = scans(tmp_path / "scans", 1) / "case_0_0000.nii.gz"
    export(path, tmp_path / "n.onnx", form=None, int8=False, calibrate=scan)
    assert "scan: 3 windows" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match=r"no scan in '.*student.safetensors'"):
        export(path, tmp_path / "o.onnx", form=None, int8=False, calibrate=path)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_what_one_runtime_gets_wrong_is_not_left_behind(tmp_path, monkeypatch, runtime):
    path = model(tmp_path)
    begin = stage.start

    def shifted(name, graph, window, outputs):
        network = begin(name, graph, window, outputs)
        return (lambda image: network(image).roll(1, 1)) if name == runtime else network

    monkeypatch.setattr(stage, "start", shifted)
    with pytest.raises(FlarekdError, match=rf"scan windows in {runtime}, 99.99% are needed"):
        export(path, tmp_path / "out" / "n.onnx", form=None, int8=False, calibrate=None)
    assert left(tmp_path / "out") == []


def test_an_int8_network_that_is_too_far_from_torch_is_not_left_behind(tmp_path, monkeypatch):
    path = model(tmp_path)
    monkeypatch.setattr(stage, "LEAST_INT8", 1.0)
    # unusable input, not a bug: status 3
    with pytest.raises(InputError, match="other scans with --calibrate, or leave out --int8"):
        export(
            path,
            tmp_path / "out" / "int8.onnx",
            form=None,
            int8=True,
            calibrate=scans(tmp_path / "scans"),
        )
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--out", "a.onnx", "--int8"], 2, "int8 takes its ranges from scans · give some"),
        (["--out", "a.onnx", "--format", "openvino"], 2, "end --out in .xml"),
        (["--out", "a.onnx", "--format", "tflite"], 2, "end --out in .onnx or .xml"),
        (["--out", "a.pt"], 2, "end --out in .onnx or .xml"),
        (["--out", "a.onnx", "--calibrate", "none"], 3, "no scan in 'none'"),
    ],
)
def test_a_mistake_is_told_with_its_remedy(tmp_path, monkeypatch, arguments, status, message):
    path = model(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = dict(pairwise([*arguments, None]))
    calibrate = names.get("--calibrate")
    with pytest.raises(FlarekdError) as caught:
        export(
            path,
            Path(names["--out"]),
            form=names.get("--format"),
            int8="--int8" in arguments,
            calibrate=Path(calibrate) if calibrate else None,
        )
    assert message in str(caught.value)
    assert caught.value.exit_code == status
    assert left(tmp_path) == ["student.safetensors"]


def test_the_verb_writes_and_says_what_it_checked(tmp_path):
    path = model(tmp_path)
    done = flarekd("export", "--model", path, "--out", tmp_path / "n.onnx", "--format", "onnx")
    for runtime in ("openvino", "onnx"):  # infer may take either
        assert f"{runtime} against torch, scan: 3 windows" in done.stderr
        assert f"{runtime} against torch, noise: 1 windows" in done.stderr
    assert "of all labels" in done.stderr
    assert "student, float32" in done.stderr
    assert (tmp_path / "n.onnx").exists()


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_an_onnx_file_whose_weights_lie_elsewhere_is_refused(exported, tmp_path, runtime):
    graph = onnx.load(exported[1][".onnx"])
    for tensor in graph.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    path = tmp_path / "network.onnx"
    onnx.save(graph, path)
    with pytest.raises(InputError, match="its weights lie in other files"):
        load(path, "student", StudentUNet, torch.device("cpu"), runtime)


def doctored(exported, tmp_path, change):
    """An exported network after `change` of its graph, in a file of its own."""
    network = onnx.load(exported[1][".onnx"])
    change(network)
    path = tmp_path / "doctored.onnx"
    onnx.save(network, path)
    return path


def custom(network):
    network.graph.node[-1].op_type, network.graph.node[-1].domain = "Evil", "stranger"
    network.opset_import.append(onnx.helper.make_opsetid("stranger", 1))


def endless(network):
    body = onnx.helper.make_graph([], "body", [], [])
    network.graph.node.append(onnx.helper.make_node("Loop", ["", ""], [], body=body))


def function(network):
    ids = [onnx.helper.make_opsetid("", 17)]
    network.functions.append(onnx.helper.make_function("own", "F", ["x"], ["y"], [], ids))


@pytest.mark.parametrize(
    ("change", "named"),
    [(custom, "Evil"), (endless, "Loop"), (function, "functions of its own")],
)
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_graph_with_operators_of_nobody_is_refused(exported, tmp_path, runtime, change, named):
    path = doctored(exported, tmp_path, change)
    with pytest.raises(InputError, match=f"no network of flarekd has {named} · give what"):
        load(path, "student", StudentUNet, CPU, runtime)


def other_groups(network):
    node = next(node for node in network.graph.node if node.op_type == "Conv")
    node.attribute.append(onnx.helper.make_attribute("group", 7))


def other_opset(network):
    network.opset_import[0].version = 9999


def other_input(network):
    for node in network.graph.node:
        node.input[:] = ["picture" if name == "image" else name for name in node.input]
    network.graph.input[0].name = "picture"
    network.graph.input.append(
        onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])
    )


def other_shape(network):
    weights = next(one for one in network.graph.initializer if len(one.dims) == 5)
    weights.dims[:2] = [weights.dims[1], weights.dims[0]]


def other_scale(network):
    for one in network.graph.initializer:
        if len(one.dims) == 1:
            one.dims.append(1)


def whole_numbers(network):
    network.graph.node[-1].output[0] = "before"
    to = onnx.TensorProto.INT64
    network.graph.node.append(onnx.helper.make_node("Cast", ["before"], ["logits"], to=to))
    network.graph.output[0].type.tensor_type.elem_type = to


def fewer_classes(network):
    keys = [entry for entry in network.metadata_props if entry.key == "flarekd"]
    told = json.loads(keys[0].value)
    told["network"]["classes"], told["labels"] = 14, told["labels"][:14]
    keys[0].value = json.dumps(told | {"label_ids": told["label_ids"][:14]})


@pytest.mark.parametrize(
    ("runtime", "change"),
    [
        *product(("openvino", "onnx"), (other_shape, whole_numbers, fewer_classes)),
        # these OpenVINO runs for what they are
        *product(("onnx",), (other_groups, other_opset, other_input, other_scale)),
    ],
)
def test_a_graph_that_a_runtime_cannot_run_is_refused_quietly(
    exported, tmp_path, capfd, runtime, change
):
    path = doctored(exported, tmp_path, change)
    with pytest.raises(InputError, match=f"{runtime} cannot run the graph: .* · export the model"):
        load(path, "student", StudentUNet, CPU, runtime).network(torch.zeros(1, 1, 8, 24, 32))
    assert capfd.readouterr() == ("", "")


def test_a_loop_in_a_file_of_openvino_is_refused(tmp_path, exported):
    import openvino

    ov = pytest.importorskip("openvino.opset13", reason="old versions have it elsewhere")
    x = ov.parameter([1], np.float32, "image")
    body = openvino.Model([ov.add(x, x)], [x], "body")
    loop = ov.tensor_iterator()
    outer = ov.parameter([1], np.float32)
    loop.set_body(body)
    loop.set_merged_input(x, outer.output(0), body.get_results()[0].output(0))
    out = loop.get_iter_value(body.get_results()[0].output(0), -1)
    path = tmp_path / "network.xml"
    openvino.save_model(openvino.Model([out], [outer]), path)
    with pytest.raises(InputError, match=r"no network of flarekd has TensorIterator"):
        load(path, "student", StudentUNet, CPU, "openvino")


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"Concat", "no network of flarekd has"), (b"logits", "cannot run the graph")],
)
def test_names_in_a_graph_that_are_no_text_are_refused_quietly(
    exported, tmp_path, capfd, text, said
):
    path = tmp_path / "network.onnx"
    content = exported[1][".onnx"].read_bytes()
    path.write_bytes(content.replace(text, b"\xff\xfe" + text[2:]))
    with pytest.raises(InputError, match=said):
        load(path, "student", StudentUNet, CPU, "onnx").network(torch.zeros(1, 1, 8, 24, 32))
    assert capfd.readouterr() == ("", "")


def test_a_graph_whose_logits_would_fill_memory_is_refused(exported, tmp_path):
    def large(network):
        entry = next(entry for entry in network.metadata_props if entry.key == "flarekd")
        many = {"labels": [f"c{i}" for i in range(40)], "label_ids": list(range(40))}
        many |= {"network": {"classes": 40}, "patch": [256, 256, 256]}
        entry.value = json.dumps(json.loads(entry.value) | many)

    path = doctored(exported, tmp_path, large)
    with pytest.raises(InputError, match=r"a window of .* gives 671,088,640 numbers"):
        load(path, "student", StudentUNet, CPU, "onnx")
