"""Pickles are read as data: what plans and weights need comes out, anything else is refused."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch

from flarekd.errors import InputError
from flarekd.nnunet import weigh
from flarekd.nnunet.unpickle import read_checkpoint, read_pickle

PLANS = {
    "spacing": np.array([4.0, 1.2, 1.2]),
    "patch": np.array([[32, 128, 192]], order="F"),
    "order": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    "mean": np.float32(79.5),
    "classes": np.int64(14),
    "mask": np.bool_(True),
    "big_endian": np.array([1.5, -2.0], dtype=">f4"),
    "properties": OrderedDict([(0, OrderedDict(sd=np.float64(142.25)))]),
    "name": "3d_fullres",
    "nothing": None,
    "shapes": [(1, 2), (3, 4)],
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plans_come_out_as_plain_numbers(tmp_path, protocol):
    path = tmp_path / "plans.pkl"
    path.write_bytes(pickle.dumps(PLANS, protocol=protocol))
    found = read_pickle(path)
    assert found == {
        "spacing": [4.0, 1.2, 1.2],
        "patch": [[32, 128, 192]],
        "order": [[0, 1, 2], [3, 4, 5]],
        "mean": 79.5,
        "classes": 14,
        "mask": 1,
        "big_endian": [1.5, -2.0],
        "properties": {0: {"sd": 142.25}},
        "name": "3d_fullres",
        "nothing": None,
        "shapes": [(1, 2), (3, 4)],
    }
    assert type(found["mean"]) is float


def test_the_names_of_older_numpy_are_read_too(tmp_path):
    data = pickle.dumps(PLANS, protocol=3)
    older = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert older != data or b"numpy.core.multiarray" in data
    (tmp_path / "plans.pkl").write_bytes(older)
    assert read_pickle(tmp_path / "plans.pkl")["spacing"] == [4.0, 1.2, 1.2]


def tensors():
    """Views, other types, and what lies beside the weights in a checkpoint."""
    whole = torch.arange(24.0).reshape(4, 6)
    weights = OrderedDict(
        whole=whole,
        turned=whole.t()[1:3],
        half=torch.tensor([0.5, -2.0], dtype=torch.float16),
        bfloat=torch.tensor([3.0, 0.25], dtype=torch.bfloat16),
        count=torch.tensor(7),
    )
    weights._metadata = OrderedDict({"": {"version": 1}})  # what state_dict() leaves there
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
        "logging": {"ema": [np.float32(0.5), np.float64(0.25)]},
        "init_args": {"device": torch.device("cuda", 0), "fold": 0},
    }


@pytest.mark.parametrize("in_zip", [True, False], ids=["zip", "legacy"])
def test_a_checkpoints_tensors_are_those_that_torch_saved(tmp_path, in_zip):
    path = tmp_path / "checkpoint.pth"
    saved = tensors()
    torch.save(saved, path, _use_new_zipfile_serialization=in_zip)
    found = read_checkpoint(path)
    assert found.content["logging"] == {"ema": [0.5, 0.25]}
    assert found.content["init_args"] == {"device": "cuda", "fold": 0}
    for name, tensor in saved["network_weights"].items():
        read = found.tensor(found.content["network_weights"][name])
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor)


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called

    def __call__(self):
        """Never: pickle only wants what it calls to be callable."""


def harm(canary):
    """Programs that make the file `canary`, by the name that gives them away and how they go."""
    touch, python = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    system = Calls(os.system, touch)
    chain = Calls(Calls(getattr, Calls(__import__, "os"), "system"), touch)
    imported = Calls(getattr, Calls(__import__, "pathlib"), "Path")
    touched = Calls(Calls(getattr, Calls(imported, str(canary)), "touch"))
    word = bytes([len(touch)]) + touch.encode()
    # OrderedDict of a tuple in which the call stands
    nested = b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x93"
    nested += b"\x8c\x05posix\x8c\x06system\x93\x8c" + word + b"\x85R" + b"0)R."
    return {
        "posix.system in protocol 0": pickle.dumps(system, protocol=0),
        "posix.system in protocol 4": pickle.dumps(system, protocol=4),
        "posix.system written by hand": f"cposix\nsystem\n(S'{touch}'\ntR.".encode(),
        "posix.system as an instance": f"(S'{touch}'\niposix\nsystem\n.".encode(),
        "posix.system as an object": f"(cposix\nsystem\nS'{touch}'\no.".encode(),
        "posix.system deep in a dict": pickle.dumps({"a": [OrderedDict(b=(system,))]}, protocol=4),
        "posix.system within a call that is admitted": nested,
        "builtins.eval in protocol 4": pickle.dumps(Calls(eval, python), protocol=4),
        "__builtin__.eval in protocol 2": pickle.dumps(Calls(eval, python), protocol=2),
        "builtins.exec in protocol 4": pickle.dumps(Calls(exec, python), protocol=4),
        "builtins.getattr of an import": pickle.dumps(chain, protocol=4),
        "builtins.getattr thrice": pickle.dumps(touched, protocol=4),
    }


HARM = list(harm("canary"))


@pytest.mark.parametrize("kind", HARM)
def test_these_programs_do_harm_to_whoever_unpickles_them(tmp_path, kind):
    canary = tmp_path / "canary"
    pickle.loads(harm(canary)[kind])
    assert canary.exists()


def refused(read, path, kind):
    """Read a harmful file: it must be refused by the name that it wanted to call."""
    with pytest.raises(InputError, match="nothing of it was executed") as caught:
        read(path)
    assert caught.value.exit_code == 3
    assert f"{str(path)!r} names {kind.split()[0]!r}" in str(caught.value)


@pytest.mark.parametrize("kind", HARM)
def test_harm_is_refused_by_name_and_nothing_is_executed(tmp_path, kind):
    canary, path = tmp_path / "canary", tmp_path / "plans.pkl"
    path.write_bytes(harm(canary)[kind])
    refused(read_pickle, path, kind)
    refused(read_checkpoint, path, kind)
    assert not canary.exists()


@pytest.mark.parametrize("kind", HARM)
def test_harm_in_a_checkpoint_is_refused_like_that_in_plans(tmp_path, kind):
    canary, path = tmp_path / "canary", tmp_path / "checkpoint.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", harm(canary)[kind])
    refused(read_checkpoint, path, kind)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Calls(__import__, "os"), "builtins.__import__"),
        (Calls(np.load, "x.npy", None, True), "numpy.load"),
        (Calls(torch.load, "x.pth"), "torch.serialization.load"),
        (Calls(set, [1]), "builtins.set"),
        ({"network": torch.nn.Linear}, "torch.nn.modules.linear.Linear"),
    ],
)
def test_whatever_is_not_needed_is_refused_by_name(tmp_path, call, name):
    (tmp_path / "plans.pkl").write_bytes(pickle.dumps(call, protocol=4))
    with pytest.raises(InputError, match=f"names {name!r}"):
        read_pickle(tmp_path / "plans.pkl")


@pytest.mark.parametrize("array", [np.array([{}, 1], dtype=object), np.zeros(2, "f4,i4"), "U"])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, array):
    """An array of objects holds pointers: numpy would follow whatever the file says they are."""
    (tmp_path / "plans.pkl").write_bytes(pickle.dumps(np.asarray(array), protocol=4))
    with pytest.raises(InputError, match="an array of"):
        read_pickle(tmp_path / "plans.pkl")


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"not a pickle", b"\xff" * 50])
def test_what_is_no_pickle_is_refused(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    for read in (read_pickle, read_checkpoint):
        with pytest.raises(InputError, match="cannot be read") as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("in_zip", [True, False], ids=["zip", "legacy"])
def test_a_torn_checkpoint_is_refused(tmp_path, in_zip):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {"a": torch.ones(5000)}}, path, _use_new_zipfile_serialization=in_zip)
    path.write_bytes(path.read_bytes()[:-12000])

    def read():
        found = read_checkpoint(path)
        found.tensor(found.content["state_dict"]["a"])

    with pytest.raises(InputError, match="cannot be read"):
        read()


@pytest.mark.parametrize("number", [10**9, 2**32 - 1])
def test_a_memo_that_would_claim_all_memory_is_refused(tmp_path, number):
    program = b"\x80\x02]r" + number.to_bytes(4, "little") + b"."
    (tmp_path / "plans.pkl").write_bytes(program)
    with pytest.raises(InputError, match=f"memo {number} at byte 3"):
        read_pickle(tmp_path / "plans.pkl")


def test_a_missing_file_is_refused(tmp_path):
    for read in (read_pickle, read_checkpoint):
        with pytest.raises(InputError, match="No such file"):
            read(tmp_path / "none")


def test_a_compressed_checkpoint_is_refused(tmp_path):
    """Torch writes none; one could unpack to more than any memory holds."""
    with zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(InputError, match="is compressed"):
        read_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize(
    "view",
    [
        (0, (2,), ()),
        (1, (4,), (1,)),
        (0, (2, 3), (3, 1)),
        (-1, (2,), (1,)),
        (0, (5,), (0,)),
        (0, (2,), (-1,)),
    ],
)
def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path, view):
    path = tmp_path / "checkpoint.pth"
    torch.save({"a": torch.arange(4.0)}, path)
    found = read_checkpoint(path)
    offset, shape, stride = view
    forged = replace(found.content["a"], offset=offset, shape=shape, stride=stride)
    with pytest.raises(InputError, match="reaches beyond its numbers"):
        found.tensor(forged)


def doubled(times):
    """A tuple of the tuple before, twice; each doubles what there is."""
    return b")" + b"2\x86" * times


def growing_lists(count):
    """Lists that hold the next one twice, which is still empty then."""
    made = b"]\x940" * count
    filled = (b"h%c(h%ch%ce0" % (n, n + 1, n + 1) for n in range(count - 1))
    return made + b"".join(filled) + b"h\x00"


def listed(times):
    value = []
    for _ in range(times):
        value = [value, value]
    return pickle.dumps(value, protocol=4)[2:-1]


FLOATS = b"ctorch\nFloatStorage\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((\x8c\x01kctorch\nFloatStorage\nK\x04t"
BOMBS = {
    "key": b"}" + doubled(60) + b"Ns",
    "set": b"\x8f(" + doubled(60) + b"\x90",
    "tuple": doubled(60),
    "lists": listed(60),
    "growing lists": growing_lists(60),
    "within itself": b"]\x94h\x00a",
    "deep key": b"}" + b")" + b"\x85" * 300_000 + b"Ns",
    "deep list": b"]" * 30_000 + b"a" * 29_999,
    "storage": b"(\x8c\x07storagectorch\nFloatStorage\n"
    + growing_lists(60)
    + b"\x8c\x03cpuK\x01tQ",
    "kind": b"(" + growing_lists(60) + FLOATS + b"\x8c\x01k\x8c\x03cpuK\x01tQ",
    "encoding": b"c_codecs\nencode\n\x8c\x01a" + growing_lists(60) + b"\x86R",
    "dtype": b"cnumpy\ndtype\n" + listed(60) + b"\x85R",
    "changed function": b"c_codecs\nencode\n}\x8c\x01aNsb",
    "changed tensor": TENSOR + b"K\x00K\x02\x85K\x01\x85tR}\x8c\x05shape]sb",
    "new dtype": b"cnumpy\ndtype\n)\x81",
    "size": TENSOR + b"K\x00\x8a\xff" + b"\x7f" * 255 + b"\x85K\x01\x85tR",
    "mark": b"(2(b(",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_few_bytes_that_stand_for_all_time_or_memory_are_refused(tmp_path, kind):
    path = tmp_path / "plans.pkl"
    path.write_bytes(b"\x80\x04" + BOMBS[kind] + b".")
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_pickle(path)
    assert len(str(caught.value)) < 500
    told = {
        "changed tensor": "a tensor is what it was made as",
        "changed function": "a function is not to be changed",
        "size": "a size that no tensor has",
        "storage": "it names something else than the numbers of a tensor",
        "mark": "it takes what is not there",
    }
    assert told.get(kind, "") in str(caught.value)


def test_an_array_of_no_numbers_has_no_rows(tmp_path):
    path = tmp_path / "plans.pkl"
    data = pickle.dumps(np.zeros((200, 0)), protocol=4)
    assert b"K\xc8K\x00\x86" in data
    path.write_bytes(data.replace(b"K\xc8K\x00\x86", b"J\xff\xff\xff\x7fK\x00\x86"))
    assert read_pickle(path) == []


@pytest.mark.parametrize("limit", ["MOST_OPCODES", "MOST_VALUES", "MOST_WORK", "LONGEST_PICKLE"])
def test_each_limit_holds(tmp_path, monkeypatch, limit):
    path = tmp_path / "plans.pkl"
    key = tuple(range(30))
    path.write_bytes(pickle.dumps([{key: key} for _ in range(30)]))
    assert len(read_pickle(path)) == 30
    monkeypatch.setattr(weigh, limit, 150)
    with pytest.raises(InputError, match=r"it goes on after|more than 150 values"):
        read_pickle(path)


def test_an_entry_that_says_it_is_longer_than_its_file_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"weights": torch.zeros(1000)}, path)
    content = path.read_bytes()
    place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/0"))  # in the directory
    size = content.index((4000).to_bytes(4, "little"), place)
    path.write_bytes(content[: size + 4] + (1 << 31).to_bytes(4, "little") + content[size + 8 :])
    found = read_checkpoint(path)
    with pytest.raises(InputError, match="is longer than it can be"):
        found.tensor(found.content["weights"])
