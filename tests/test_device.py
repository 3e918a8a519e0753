"""The device asked for, or an error: never another one in silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flarekd import device
from flarekd.errors import UsageError


def test_the_cpu_is_always_there():
    assert device.choose("cpu") == torch.device("cpu")


def test_auto_takes_cuda_where_there_is_some():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert device.choose("auto").type == expected


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "cuda:x", "cuda:-1"])
def test_an_unknown_name_is_a_wrong_usage(name):
    with pytest.raises(UsageError, match="no device is called") as caught:
        device.choose(name)
    assert caught.value.exit_code == 2
    assert repr(name) in str(caught.value)
    assert "use auto, cpu, cuda, cuda:N or mps" in str(caught.value)


def test_a_cuda_device_beyond_those_found_is_told_with_their_number():
    count = torch.cuda.device_count()
    with pytest.raises(UsageError, match=rf"'cuda:{count}' asked for, {count} CUDA devices found"):
        device.choose(f"cuda:{count}")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_mps_asked_for_where_there_is_none_is_an_error():
    with pytest.raises(UsageError, match="device 'mps' asked for, none found"):
        device.choose("mps")


@pytest.mark.parametrize("name", ["meta", "xla"])
def test_a_device_that_torch_knows_and_flarekd_does_not_is_refused(name):
    with pytest.raises(UsageError, match=f"device '{name}' is not supported"):
        device.choose(name)


def test_autocast_takes_what_the_device_can_do(monkeypatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert device.autocast_dtype(cuda, "fp16") == torch.float16
    assert device.autocast_dtype(cuda, "bf16") == torch.bfloat16
    assert device.autocast_dtype(cuda, "fp32") is None
    assert device.autocast_dtype(cpu, "fp16") is None  # no CPU is fast at it
    for can, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda can=can: can)
        assert device.autocast_dtype(cpu, "bf16") is expected
        assert device.autocast_dtype(cpu, "fp32") is None


@pytest.mark.parametrize(
    ("where", "lower", "capability", "does"),
    [
        ("cpu", None, "AVX2", True),
        ("cpu", torch.bfloat16, "AVX2", False),
        ("cpu", None, "AVX512", False),
        ("cpu", None, "DEFAULT", False),
        ("cuda", None, "AVX2", False),
    ],
)
def test_channels_lie_last_where_it_was_measured_faster(
    where, lower, capability, does, monkeypatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    network = nn.Sequential(nn.Conv3d(2, 3, 3), nn.ConvTranspose3d(3, 2, 2), nn.Conv2d(2, 3, 3))
    device.lay_out(network, torch.device(where), lower)
    assert [not part.weight.is_contiguous() for part in network] == [does, does, False]


@pytest.mark.parametrize(
    ("facts", "can"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n", False),
        ("flags\t\t: fpu avx2 fma\n", False),
        ("bugs: avx512_bf16\n", False),
        (None, False),  # not Linux
    ],
)
def test_bf16_is_read_from_the_processors_flags(facts, can, tmp_path, monkeypatch):
    place = tmp_path / "cpuinfo"
    if facts is not None:
        place.write_text(facts, encoding="ascii")
    monkeypatch.setattr(device, "_CPU_FACTS", place)
    assert device.cpu_multiplies_bf16.__wrapped__() is can
