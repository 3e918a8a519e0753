import json
import signal
from types import MappingProxyType

import numpy as np
import pytest
import torch

from flarekd import config, device, interrupts
from flarekd.errors import InputError
from flarekd.imaging import store
from flarekd.imaging.intensity import IntensityStatistics
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet
from flarekd.training import checkpoint
from flarekd.training.batches import Batches, ahead
from flarekd.training.checkpoint import NAME as CHECKPOINT
from flarekd.training.epoch import DivergedError
from flarekd.training.log import LOG, read_log
from flarekd.training.loop import Trainer

STATISTICS = IntensityStatistics(-100.0, 300.0, 60.0, 80.0)
QUICK = config.load(config.builtin("quick"))
STUDENT = QUICK.student.model_copy(
    update={
        "epochs": 3,
        "iterations": 4,
        "class_weights": (),
        "patch": (8, 16, 16),
        "oversize": (8, 20, 20),
        "foreground": 0.33,
        "lesions": 0.0,
        "checkpoint_minutes": 0.0,
    }
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Three small cases, to be read."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    found = []
    for index in range(3):
        labels = np.zeros((10, 24, 28), np.uint8)
        labels[3:7, 6:14, 8:18] = 1
        labels[4:6, 7:12, 10:16] = 2
        image = (rng.normal(0, 20, labels.shape) + 90 * (labels == 1) + 180 * (labels == 2)).astype(
            np.int16
        )
        path = folder / f"case{index}.b2nd"
        store.write_case(
            path, image, labels, spacing_zyx=(5.0, 2.0, 2.0), chunk_zyx=(8, 16, 16), key="k"
        )
        found.append(store.open_case(path))
    return found


def student():
    torch.manual_seed(0)
    return StudentUNet(3, channels=(4, 8, 8, 8), strides=STUDENT.strides)


KNOWN = {
    "case0": torch.tensor([False, True, False]),
    "case1": torch.tensor([False, False, True]),
    "case2": torch.tensor([False, True, True]),
}


def interrupt():
    raise KeyboardInterrupt


def train(
    folder,
    cases,
    settings,
    resume=False,
    *,
    stop=None,
    how=interrupt,
    on_epoch=print,
    annotated=MappingProxyType({}),
):
    folder.mkdir(exist_ok=True)
    trainer = Trainer(student(), settings, folder, 5, "identity", torch.device("cpu"))
    if resume:
        trainer.resume()

    def on_iteration(done, total, note):
        if done == stop:
            how()

    make = Batches(cases, settings, STATISTICS, 5, annotated=annotated)
    weights = trainer.train(make, on_iteration, on_epoch)
    return {name: tensor.clone() for name, tensor in weights.items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize(("ema", "precision"), [(0.0, "fp32"), (0.9, "fp32"), (0.9, "bf16")])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(
    tmp_path, cases, optimizer, ema, precision, monkeypatch
):
    monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda: True)  # if need be slowly
    changes = {"name": optimizer, "ema": ema, "lr": 0.01, "warmup": 3}
    settings = STUDENT.model_copy(
        update={
            "optimizer": STUDENT.optimizer.model_copy(update=changes),
            "precision": precision,
        }
    )
    whole = train(tmp_path / "whole", cases, settings)
    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path / "cut", cases, settings, stop=10
        )  # the last checkpoint lies within an epoch
    resumed = train(tmp_path / "cut", cases, settings, resume=True)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    records = [read_log(tmp_path / folder / LOG) for folder in ("whole", "cut")]
    assert [r["iteration"] for r in records[1]] == [4, 8, 12]
    assert [r["loss"] for r in records[0]] == [r["loss"] for r in records[1]]


FLOAT32 = STUDENT.model_copy(update={"precision": "fp32"})
"""Also where the processor has bf16, which the quick configuration takes there."""


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_channels_lie_last_where_that_is_faster(tmp_path, cases, capability, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    network = student()
    Trainer(network, FLOAT32, tmp_path, 5, "identity", torch.device("cpu"))
    # of the kernels of one input channel or one voxel nobody can tell
    lie_last = {
        not weight.is_contiguous()
        for weight in network.parameters()
        if weight.ndim == 5 and weight.shape[1] > 1 and weight[0, 0].numel() > 1
    }
    assert lie_last == {capability == "AVX2"}


def test_where_the_channels_lie_changes_rounding_alone(tmp_path, cases, monkeypatch):
    losses = []
    for capability in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        train(tmp_path / capability, cases, FLOAT32)
        losses.append([record["loss"] for record in read_log(tmp_path / capability / LOG)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0] - 0.003


def test_the_forward_pass_is_lowered_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda: True)
    seen = []

    def watched(precision):
        network = student()
        network.encoder[0].register_forward_hook(lambda *call: seen.append(call[-1].dtype))
        return Trainer(
            network, STUDENT.model_copy(update={"precision": precision}), tmp_path, 5, "identity",
            torch.device("cpu"),
        )  # fmt: skip

    image = torch.randn((2, 1, *STUDENT.patch), generator=torch.Generator().manual_seed(1))
    target = torch.randint(0, 3, (2, *STUDENT.patch), generator=torch.Generator().manual_seed(2))
    losses = [watched(precision)._step([(image, target)])[0] for precision in ("fp32", "bf16")]
    assert seen == [torch.float32, torch.bfloat16]
    assert losses[0] != losses[1]  # or it would not have been lowered
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.02)


def test_a_resumed_teacher_draws_the_same_dropout(tmp_path, cases):
    settings = QUICK.teacher.model_copy(
        update={
            "epochs": 2,
            "class_weights": (),
            "iterations": 2,
            "batch": 2,
            "patch": (1, 32, 32),
            "oversize": (1, 32, 32),
            "checkpoint_minutes": 0.0,
        }
    )

    def run(folder, resume, stop=None):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        network = TeacherUNet(3, (4, 4, 4, 4))
        trainer = Trainer(network, settings, folder, 5, "identity", torch.device("cpu"))
        if resume:
            trainer.resume()

        def on_iteration(done, total, note):
            if done == stop:
                raise KeyboardInterrupt

        return trainer.train(Batches(cases, settings, STATISTICS, 5), on_iteration, lambda _: None)

    whole = run(tmp_path / "whole", False)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", False, stop=3)
    resumed = run(tmp_path / "cut", True)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_accumulated_batches_step_by_the_mean_of_their_gradients(tmp_path, cases):
    changes = {"ema": 0.0, "clip": 1e6, "name": "sgd", "momentum": 0.0, "warmup": 0}
    optimizer = STUDENT.optimizer.model_copy(update=changes)
    settings = STUDENT.model_copy(
        update={
            "optimizer": optimizer,
            "accumulate": 3,
            "epochs": 1,
            "iterations": 1,
            "precision": "fp32",
        }
    )
    make = Batches(cases, settings, STATISTICS, 5)
    trainer = Trainer(student(), settings, tmp_path, 5, "identity", torch.device("cpu"))
    trainer.train(make, lambda *_: None, lambda _: None)
    other = Trainer(student(), settings, tmp_path, 5, "identity", torch.device("cpu"))
    other.network.train()
    losses = [float(other._backward(make(index), 1)[0]) for index in range(3)]
    grads = {name: p.grad / 3 for name, p in trainer.network.named_parameters()}
    mean = {name: p.grad / 3 for name, p in other.network.named_parameters()}
    for name, grad in grads.items():
        torch.testing.assert_close(3 * grad, mean[name], rtol=1e-4, atol=1e-6, msg=name)
    assert read_log(tmp_path / LOG)[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_resumed_run_of_accumulated_batches_equals_an_undisturbed_one(tmp_path, cases):
    settings = STUDENT.model_copy(update={"accumulate": 2})
    whole = train(tmp_path / "whole", cases, settings)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", cases, settings, stop=6)
    resumed = train(tmp_path / "cut", cases, settings, resume=True)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def partly(cases, folder):
    """The cases with labels of what `KNOWN` says of them alone."""
    folder.mkdir()
    grid = {"spacing_zyx": (5.0, 2.0, 2.0), "chunk_zyx": (8, 16, 16), "key": "k"}
    for case in cases:
        hu, labels = case.read(tuple(slice(0, size) for size in case.shape_zyx))
        labels[~KNOWN[case.case].numpy()[labels]] = 0
        store.write_case(folder / f"{case.case}.b2nd", hu, labels, **grid)
    return [store.open_case(path) for path in sorted(folder.iterdir())]


def test_a_resumed_run_of_partly_annotated_cases_equals_an_undisturbed_one(tmp_path, cases):
    cases = partly(cases, tmp_path / "partly")
    whole = train(tmp_path / "whole", cases, STUDENT, annotated=KNOWN)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", cases, STUDENT, stop=6, annotated=KNOWN)
    resumed = train(tmp_path / "cut", cases, STUDENT, resume=True, annotated=KNOWN)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    records = [read_log(tmp_path / folder / LOG) for folder in ("whole", "cut")]
    for name in ("loss", "dsc"):
        assert [r[name] for r in records[0]] == [r[name] for r in records[1]]
    ordinary = train(tmp_path / "ordinary", cases, STUDENT)
    assert not all(torch.equal(tensor, ordinary[name]) for name, tensor in whole.items())


def test_the_log_states_what_a_person_wants_to_know(tmp_path, cases):
    train(tmp_path / "run", cases, STUDENT)
    lines = (tmp_path / "run" / LOG).read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    assert (last["epoch"], last["iteration"]) == (3, 12)
    assert last["lr"] == pytest.approx(STUDENT.optimizer.lr * (1 / 3) ** 0.9 * 12 / 40)
    assert len(last["dsc"]) == 2
    assert 0 <= last["data_wait_share"] <= 1
    assert last["iterations_per_s"] > 0


def test_the_student_overfits_one_patch(tmp_path, cases):
    torch.manual_seed(0)
    changes = {"ema": 0.0, "warmup": 5, "lr": 0.01, "clip": 12.0}
    optimizer = STUDENT.optimizer.model_copy(update=changes)
    settings = STUDENT.model_copy(
        update={
            "epochs": 55,
            "iterations": 2,
            "optimizer": optimizer,
            "foreground": 1.0,
            "checkpoint_minutes": 1000.0,
        }
    )
    batch = Batches(cases, settings, STATISTICS, 5)(0)
    network = StudentUNet(3, channels=(12, 16, 16, 16), strides=STUDENT.strides)
    trainer = Trainer(network, settings, tmp_path, 5, "identity", torch.device("cpu"))
    trainer.train(lambda _: batch, lambda *_: None, lambda _: None)
    assert min(read_log(tmp_path / LOG)[-1]["dsc"]) > 0.98


def test_the_teacher_overfits_one_batch(tmp_path, cases):
    torch.manual_seed(0)
    optimizer = STUDENT.optimizer.model_copy(update={"ema": 0.0, "warmup": 5, "lr": 0.03})
    settings = QUICK.teacher.model_copy(
        update={
            "epochs": 60,
            "class_weights": (),
            "iterations": 2,
            "batch": 2,
            "patch": (1, 32, 32),
            "foreground": 1.0,
            "oversize": (1, 32, 32),
            "optimizer": optimizer,
        }
    )
    batch = Batches(cases, settings, STATISTICS, 5)(0)
    network = TeacherUNet(3, (8, 8, 16, 16))
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    trainer = Trainer(network, settings, tmp_path, 5, "identity", torch.device("cpu"))
    trainer.train(lambda _: batch, lambda *_: None, lambda _: None)
    assert min(read_log(tmp_path / LOG)[-1]["dsc"]) > 0.98


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, cases):
    trainer = Trainer(student(), STUDENT, tmp_path, 5, "identity", torch.device("cpu"))
    torch.nn.init.constant_(trainer.network.heads[0].weight, float("nan"))
    with pytest.raises(DivergedError, match=r"nan in step 1 of its epoch · lower optimizer\.lr"):
        trainer.train(Batches(cases, STUDENT, STATISTICS, 5), lambda *_: None, lambda _: None)


def test_a_torn_checkpoint_is_refused(tmp_path, cases):
    train(tmp_path / "run", cases, STUDENT)
    path = tmp_path / "run" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="is not a checkpoint"):
        checkpoint.read_facts(path)


def test_batches_depend_on_seed_and_iteration_alone(cases):
    make = Batches(cases, STUDENT, STATISTICS, 5)
    one_thread = [batch for batch, _ in ahead(make, 0, 4, 1)]
    two_threads = [batch for batch, _ in ahead(make, 2, 4, 2)]
    for first, second in zip(one_thread[2:], two_threads, strict=True):
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
    assert one_thread[0][0].shape == (2, 1, 8, 16, 16)
    assert one_thread[0][1].dtype == torch.int64
    other = Batches(cases, STUDENT, STATISTICS, 6)(0)
    assert not torch.equal(other[0], one_thread[0][0])


def test_an_error_in_a_loader_thread_is_raised_with_the_case(cases):
    class Broken:
        case, shape_zyx, classes = "broken_7", (10, 24, 28), ()

        def read(self, _):
            raise RuntimeError("chunk 3 is damaged")

    with pytest.raises(InputError, match=r"training case 'broken_7': chunk 3 is damaged"):
        list(ahead(Batches([Broken()], STUDENT, STATISTICS, 5), 0, 3, 2))


def test_a_run_interrupted_while_an_epoch_is_judged_judges_it_again(tmp_path, cases):
    settings = STUDENT.model_copy(update={"checkpoint_minutes": 1000.0})
    whole = train(tmp_path / "whole", cases, settings)

    def on_epoch(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", cases, settings, on_epoch=on_epoch)
    assert checkpoint.read_facts(tmp_path / "cut" / CHECKPOINT)["iteration"] == 8
    cut = train(tmp_path / "cut", cases, settings, resume=True)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert [record["epoch"] for record in read_log(tmp_path / "cut" / LOG)] == [1, 2, 3]


@pytest.mark.parametrize("at", [6, 8, 12])
def test_a_run_asked_to_stop_writes_a_checkpoint_and_goes_on_from_it(
    tmp_path, cases, monkeypatch, at
):
    """In the middle of an epoch, at the end of one before it is judged, at the very end."""
    unlimited = []
    monkeypatch.setattr(interrupts, "_limit", lambda reader, _: unlimited.append(reader))
    settings = STUDENT.model_copy(update={"checkpoint_minutes": 1000.0})
    whole = train(tmp_path / "whole", cases, settings)
    with pytest.raises(interrupts.Terminated), interrupts.handled(lambda: None):
        train(tmp_path / "cut", cases, settings, stop=at, how=terminate)
    unlimited[0].close()
    facts = checkpoint.read_facts(tmp_path / "cut" / CHECKPOINT)
    assert facts["iteration"] == at
    cut = train(tmp_path / "cut", cases, settings, resume=True)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    records = [read_log(tmp_path / name / LOG) for name in ("whole", "cut")]
    told = [[(r["epoch"], r["loss"], r["dsc"]) for r in record] for record in records]
    assert told[0] == told[1]
    assert len(told[0]) == 3


def terminate():
    signal.raise_signal(signal.SIGTERM)
