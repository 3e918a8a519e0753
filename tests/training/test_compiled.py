"""torch.compile, and the way back to the plain network where it fails."""

import pytest
import torch
from torch import nn

from flarekd.training.compiled import Compiled


def test_where_the_compiler_fails_training_goes_on_without_it_and_says_so_once(monkeypatch):
    def broken(_network):
        def fail(_images):
            raise RuntimeError("no C++ compiler\nsecond line")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    told, network = [], nn.Linear(3, 2)
    compiled = Compiled(network, told.append)
    images = torch.ones(4, 3)
    for _ in range(2):
        assert torch.equal(compiled(images), network(images))
    assert told == ["torch.compile failed, training goes on without it: no C++ compiler"]


def test_a_compiler_that_is_not_there_is_told_at_once(monkeypatch):
    def missing(_network):
        raise RuntimeError("no inductor here")

    monkeypatch.setattr(torch, "compile", missing)
    told, network = [], nn.Linear(3, 2)
    compiled = Compiled(network, told.append)
    assert told == ["torch.compile failed, training goes on without it: no inductor here"]
    assert torch.equal(compiled(torch.ones(4, 3)), network(torch.ones(4, 3)))


def test_an_error_of_the_network_itself_is_raised(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network.forward)
    told = []
    compiled = Compiled(nn.Linear(3, 2), told.append)
    with pytest.raises(RuntimeError, match="shape"):
        compiled(torch.ones(4, 5))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_gives_what_the_plain_one_gives():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 2, 1))
    images, told = torch.randn(2, 1, 16, 16), []
    compiled = Compiled(network, told.append)
    torch.testing.assert_close(compiled(images), network(images))
    assert told == []
