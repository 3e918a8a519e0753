import pytest

from flarekd.training.schedule import poly_lr, warmup


@pytest.mark.paper
@pytest.mark.parametrize(
    ("epoch", "lr"), [(0, 0.01), (1, 0.009994), (2, 0.009988), (850, 0.0047113)]
)
def test_poly_schedule_gives_the_published_values(epoch, lr):
    assert poly_lr(0.01, epoch, 1500) == pytest.approx(lr, rel=5e-6, abs=5e-8)


def test_warmup_rises_linearly_to_one():
    assert [warmup(i, 4) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warmup(0, 0) == 1
