"""DRN against values computed by the authors' code (github.com/fyu/drn at d75db2e, `out_middle=True`)."""

import zlib

import pytest
import torch

from atrous.backbones import create_backbone
from atrous.errors import InputError

# (standard deviation, value at channel 3, row 1, column 2) of levels 2, 3, 4, 5, 8 for the weights and the picture
# of `numbers`, computed by the authors' code
AUTHORS = {
    "drn_c_26": ((0.745382, 1.71207), (0.867817, 0), (1.08934, 1.68603), (1.29797, 2.57068), (0.29449, 0)),
    "drn_c_42": (
        (0.745382, 1.71207),
        (1.10551, 0),
        (2.07596, 2.58446),
        (3.79211, 7.14889),
        (0.852747, 0.368656),
    ),
    "drn_c_58": (
        (0.745382, 1.71207),
        (1.00796, 0.230573),
        (1.60451, 5.43317),
        (2.84934, 0),
        (0.681993, 1.87585),
    ),
    "drn_d_22": (
        (0.273385, 0.932391),
        (0.442234, 0.619773),
        (0.664597, 3.40436),
        (0.837016, 1.40469),
        (0.395033, 0.433759),
    ),
    "drn_d_24": (
        (0.273385, 0.932391),
        (0.442234, 0.619773),
        (0.664597, 3.40436),
        (0.837016, 1.40469),
        (0.26173, 0.950839),
    ),
    "drn_d_38": (
        (0.273385, 0.932391),
        (0.570864, 0.994738),
        (1.31772, 2.97697),
        (2.38135, 3.61979),
        (1.05613, 1.4124),
    ),
    "drn_d_54": (
        (0.273385, 0.932391),
        (0.475925, 0.865302),
        (0.958664, 3.01244),
        (1.70403, 0),
        (0.857391, 0),
    ),
    "drn_d_105": (
        (0.273385, 0.932391),
        (0.475925, 0.865302),
        (0.958664, 3.01244),
        (17.176, 1.15776),
        (8.08441, 7.72437),
    ),
}


def numbers(shape, name):
    """Pseudo-random float32 in -1 .. 1, by integer arithmetic alone: the same anywhere."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    mixed = (i * i * 1103515245 + i * 12345 + zlib.crc32(name.encode())) % 2147483647
    return (mixed.double() / 2147483647 * 2 - 1).float().view(shape)


def fill(state_dict):
    for name, tensor in state_dict.items():
        if tensor.ndim == 4:
            tensor.copy_(numbers(tensor.shape, name) * (6 / tensor[0].numel()) ** 0.5)  # He et al., uniform
        elif name.endswith("running_var") or name.endswith("weight"):
            tensor.copy_(0.6 + 0.2 * numbers(tensor.shape, name))
        elif tensor.ndim == 1:
            tensor.copy_(0.3 * numbers(tensor.shape, name))


@pytest.mark.parametrize("name", AUTHORS)
@torch.no_grad()
def test_equals_the_code_of_the_authors(name, blank):
    network = blank(create_backbone, name, output_stride=8)
    fill(network.state_dict())
    for ours, (deviation, value) in zip(
        network(numbers((1, 3, 33, 49), "picture")), AUTHORS[name], strict=True
    ):
        assert ours.std().item() == pytest.approx(deviation, rel=1e-4)
        assert ours[0, 3, 1, 2].item() == pytest.approx(value, rel=1e-4, abs=1e-4)


@torch.no_grad()
def test_weights_of_the_authors_load_as_they_are(blank, tmp_path, randomize):
    """Their DRN-C-58 also has a projection in level 7 that its forward pass does not add: left out."""
    theirs = randomize(blank(create_backbone, "drn_c_58", output_stride=8)).state_dict()
    theirs["layer7.0.downsample.0.weight"] = torch.ones(512, 2048, 1, 1)
    theirs["fc.weight"] = torch.ones(1000, 512, 1, 1)
    torch.save(theirs, tmp_path / "drn_c_58.pth")
    ours = create_backbone("drn_c_58", output_stride=8, pretrained=tmp_path / "drn_c_58.pth")
    assert torch.equal(ours.layer8[0].conv2.weight, theirs["layer8.0.conv2.weight"])


@pytest.mark.parametrize("output_stride", [4, 16, 32])
def test_other_output_strides(output_stride):
    with pytest.raises(InputError, match=f"output_stride=8, not {output_stride}"):
        create_backbone("drn_d_22", output_stride=output_stride)
