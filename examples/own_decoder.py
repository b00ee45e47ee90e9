"""Swap one part: DeepLab v3+ with a decoder of your own, on any backbone. Prints sizes, and takes one step.

python examples/own_decoder.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous import create_model
from atrous.layers import conv_bn_act, resize


class SumDecoder(nn.Module):
    """Adds the low-level features to the context, where v3+ concatenates them (v3+ sec. 3.1): 256 channels, not 304."""

    def __init__(self, low_channels: int, channels: int = 256) -> None:
        super().__init__()
        self.lift = conv_bn_act(low_channels, channels, 1)
        self.refine = conv_bn_act(channels, channels, 3)

    def forward(self, context: Tensor, low: Tensor) -> Tensor:
        """context: (N, channels, H/16, W/16), low: (N, low_channels, H/4, W/4) -> (N, channels, H/4, W/4)."""
        refined: Tensor = self.refine(self.lift(low) + resize(context, low.shape[-2:]))
        return refined


model = create_model("deeplab_v3plus", "mobilenet_v2", num_classes=5, width=0.5)
low = model.backbone.channels[model.backbone.stage_at(4)]
model.decoder = SumDecoder(low)

pictures, labels = torch.rand(2, 3, 65, 97), torch.randint(0, 5, (2, 65, 97))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
loss = F.cross_entropy(model.train()(pictures), labels)
loss.backward()
optimizer.step()
print(f"low-level features: {low} channels; loss {loss.item():.3f}; logits {tuple(model(pictures).shape)}")
