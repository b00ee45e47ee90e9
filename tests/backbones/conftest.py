"""For the comparisons: random weights, with batch norms that do something and features that stay near 1."""

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def one_thread():
    """The maps are so small that more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def blank():
    """Build a network without spending time on its initial weights: all are given afterwards."""

    def blank(builder, *args, **options) -> nn.Module:
        with torch.device("meta"):
            network = builder(*args, **options)
        return network.to_empty(device="cpu").eval()

    return blank


@pytest.fixture
def randomize():
    def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    module.bias.data.uniform_(-0.1, 0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data.uniform_(0.3, 0.7)
                module.bias.data.uniform_(-0.3, 0.3)
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.7, 1.3)
        return network.eval()

    return randomize


@pytest.fixture
def picture() -> torch.Tensor:
    """(2, 3, 33, 65): odd, so that every grid holds the points of the coarser ones."""
    return torch.randn(2, 3, 33, 65, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def assert_same():
    """Feature maps agree to 1e-4, and there is something in them."""

    def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
        assert len(ours) == len(theirs)
        for stage, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert a.shape == b.shape, f"stage {stage}"
            assert 1e-2 < b.std() < 100, f"stage {stage}: the comparison would say nothing"
            assert (a - b).abs().max() <= 1e-4, f"stage {stage}"

    return assert_same
