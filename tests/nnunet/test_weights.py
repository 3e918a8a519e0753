"""Networks of nnU-Net are recognised, renamed and compute what they computed, or are refused."""

from __future__ import annotations

import pytest
import torch
from tests.nnunet.networks import PublishedTeacher, UNetV1, UNetV2, shaken

from flarekd.errors import InputError
from flarekd.nnunet.weights import convert
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet

STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 1))
KERNELS = ((1, 3, 3), (3, 3, 3), (3, 1, 3), (3, 3, 3))
CHANNELS = (4, 6, 8, 8)


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def built(source):
    """flarekd's network with the weights of `source`."""
    state = source.state_dict()
    converted = convert(state)
    make = StudentUNet if converted.role == "student" else TeacherUNet
    network = make(**converted.network)
    network.requires_grad_(False).load_state_dict(
        {ours: state[theirs] for ours, theirs in converted.names.items()}
    )
    return network, converted


def same(ours, theirs):
    scale = max(float(output.abs().max()) for output in theirs)
    assert scale > 0.1
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) < 1e-6 * max(1.0, scale)


@pytest.mark.parametrize("count", [2, 3])
def test_a_3d_u_net_of_v1_computes_the_same_at_every_level(count):
    theirs = shaken(UNetV1(3, CHANNELS, STRIDES, KERNELS, count))
    ours, converted = built(theirs)
    assert converted.role == "student"
    assert not converted.dropped
    image = images(2, 1, 8, 16, 16)
    same(ours.train()(image), theirs(image))
    same([ours.eval()(image)], theirs(image)[:1])


def test_a_3d_u_net_of_v2_computes_the_same_at_every_level():
    theirs = shaken(UNetV2(3, CHANNELS, STRIDES, KERNELS, (2, 1, 3, 2), (1, 2, 3)))
    ours, converted = built(theirs)
    assert converted.network["convs"] == [2, 1, 3, 2]
    assert converted.network["decoder_convs"] == [3, 2, 1]
    assert converted.network["bias"]
    image = images(2, 1, 8, 16, 16)
    same(ours.train()(image), theirs(image))


@pytest.mark.parametrize(
    ("make", "bias"),
    [
        (lambda c: UNetV1(2, c, [(2, 2)] * 3, [(3, 3)] * 4), False),
        (lambda c: UNetV2(2, c, [(2, 2)] * 3, [(3, 3)] * 4, (2,) * 4, (2,) * 3), True),
    ],
    ids=["v1", "v2"],
)
def test_a_binary_2d_u_net_is_a_teacher_that_computes_the_same(make, bias):
    theirs = shaken(make(CHANNELS))
    ours, converted = built(theirs)
    assert converted.role == "teacher"
    assert converted.network["attention"] == "none"
    assert converted.network["bias"] is bias
    image = images(2, 1, 16, 24)
    same(ours.train()(image), theirs(image))


def test_the_published_teacher_computes_the_same_without_its_dead_levels():
    theirs = shaken(PublishedTeacher(2, (4, 6, 8, 8, 8, 8, 8, 8)))
    ours, converted = built(theirs)
    assert converted.role == "teacher"
    assert converted.network["attention"] == "published"
    image = images(2, 1, 256, 128)
    with torch.no_grad():
        same([ours.eval()(image)], [theirs(image)])
    dead = {name.split(".")[0] for name in converted.dropped}
    assert dead == {"conv_blocks_localization", "tu"}
    assert {int(name.split(".")[1]) for name in converted.dropped} == set(range(1, 7))


@pytest.mark.paper
def test_the_published_teacher_drops_exactly_what_the_release_never_runs():
    with torch.device("meta"):
        theirs = PublishedTeacher(15, (32, 64, 128, 256, 480, 480, 480, 480))
    assert sum(weight.numel() for weight in theirs.parameters()) == 80_271_046
    state = theirs.state_dict()
    with torch.device("meta"):
        binary = PublishedTeacher(2, (32, 64, 128, 256, 480, 480, 480, 480)).state_dict()
    converted = convert(binary)
    assert sum(state[name].numel() for name in converted.dropped) == 17_307_072
    assert sum(weight.numel() for weight in converted.build().parameters()) == 62_939_014


@pytest.mark.paper
def test_the_flare22_student_is_the_default_student():
    strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    kernels = ((1, 3, 3), *((3, 3, 3),) * 4)
    with torch.device("meta"):
        state = UNetV1(14, (16, 32, 64, 128, 256), strides, kernels).state_dict()
        published = StudentUNet(14).state_dict()
    converted = convert(state)
    found = {ours: state[theirs].shape for ours, theirs in converted.names.items()}
    assert found == {name: tensor.shape for name, tensor in published.items()}
    assert sum(weight.numel() for weight in converted.build().parameters()) == 5_644_016


def state(make=UNetV1, classes=2, channels=CHANNELS, axes=3, **changes):
    """A state dict, some of it changed, or left out where it is changed to None."""
    strides, kernels = (STRIDES, KERNELS) if axes == 3 else ([(2, 2)] * 3, [(3, 3)] * 4)
    more = () if make is UNetV1 else ((2,) * 4, (2,) * 3)
    with torch.device("meta"):
        found = make(classes, channels, strides, kernels, *more).state_dict()
        for name, shape in changes.items():
            found[name] = None if shape is None else torch.empty(shape)
    return {name: tensor for name, tensor in found.items() if tensor is not None}


STEM = {"encoder.stem.convs.0.conv.weight": (4, 1, 3, 3, 3)}
BATCH_NORM = {"conv_blocks_context.0.blocks.0.instnorm.running_mean": (4,)}
NO_UP = {f"tu.{u}.weight": None for u in range(3)}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (state(UNetV2, **STEM), "residual encoder"),
        (state(**BATCH_NORM), "batch norm"),
        (state(**NO_UP), "upsamples without weights"),
        (state(more=(1,)), "holds 'more'"),
        (state(**{"conv_blocks_context.0.blocks.0.conv.weight": (4, 2, 1, 3, 3)}), "2 input chan"),
        (state(**{"conv_blocks_context.1.blocks.0.conv.weight": (6, 4, 2, 3, 3)}), "even size"),
        (
            state(**{"conv_blocks_context.1.blocks.1.conv.bias": None}),
            "no weights for 'encoder.1.1",
        ),
        (state(**{"seg_outputs.1.weight": (5, 6, 1, 1, 1)}), "'seg_outputs.1.weight' is"),
        (state(**{"seg_outputs.2.bias": (2,)}), "no weights for"),
        (state(**{"seg_outputs.0.weight": (3,)}), "not those of convolutions in 2D or 3D"),
        (state(classes=1), "one output alone"),
        (state(classes=3, axes=2), "it is 2D with 3 outputs"),
        ({}, "are missing"),
        ({"layer.weight": torch.empty(1)}, "holds 'layer.weight'"),
    ],
)
def test_what_is_no_plain_u_net_is_refused_with_the_reason(found, reason):
    with pytest.raises(InputError, match="the network is refused: ") as caught:
        convert(found)
    assert reason in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_2d_network_of_another_structure_is_refused():
    with torch.device("meta"):
        deep = UNetV1(2, CHANNELS, [(2, 2)] * 3, [(3, 3)] * 4, count=3).state_dict()
        narrow = UNetV1(2, CHANNELS, [(2, 1), (2, 2), (2, 2)], [(3, 3)] * 4).state_dict()
    for found in (deep, narrow):
        with pytest.raises(InputError, match="2D with other kernels, strides or depths"):
            convert(found)


@pytest.mark.parametrize("gone", ["up3.fc1.bias", "attentionblock2.gate_block_1.W.1.running_mean"])
def test_a_published_teacher_that_lacks_something_is_refused(gone):
    with torch.device("meta"):
        found = PublishedTeacher(2, (4, 6, 8, 8, 8, 8, 8, 8)).state_dict()
    del found[gone]
    with pytest.raises(InputError, match="no weights for 'decoder"):
        convert(found)


def test_a_published_teacher_of_other_blocks_is_refused():
    with torch.device("meta"):
        found = PublishedTeacher(2, (4, 6, 8, 8, 8, 8, 8, 8)).state_dict()
        found["up3.conv4.weight"] = torch.empty(1)
    with pytest.raises(InputError, match=r"no place for 'up3\.conv4\.weight'"):
        convert(found)
