"""Segmentation networks of other libraries in PyTorch, with random weights.

The networks of torchvision and segmentation_models_pytorch are imported.
semseg's PSPNet, VainF's DeepLabV3 and V3+, and milesial's U-Net are written
here from their descriptions, shallow or narrow, with the parameter names of
their published files.
"""

from unittest import mock

import torch
from torch import nn
import torch.nn.functional as F

import parity_table as parity

CLASSES = 5
# Size of the image that determines the random running statistics; smp takes
# multiples of 32 only.
SIZE = (64, 96)
LAYERS = (1, 1, 2, 2)


def conv_norm(into, out, kernel=1, dilation=1, padding=None):
  padding = dilation * (kernel // 2) if padding is None else padding
  conv = nn.Conv2d(
    into, out, kernel, padding=padding, dilation=dilation, bias=False
  )
  return conv, nn.BatchNorm2d(out), nn.ReLU()


def resnet(**fields):
  """Builds a shallow torchvision ResNet of bottlenecks."""
  torchvision = parity.import_original("torchvision")
  block = torchvision.models.resnet.Bottleneck
  return torchvision.models.ResNet(block, LAYERS, **fields)


class Pyramid(nn.Module):
  """VainF's ASPP: 1x1, three rates, and the mean of the image."""

  def __init__(self, into, rates):
    super().__init__()
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_norm(into, 256))
    self.convs = nn.ModuleList(
      [
        nn.Sequential(*conv_norm(into, 256)),
        *(nn.Sequential(*conv_norm(into, 256, 3, r)) for r in rates),
        mean,
      ]
    )
    self.project = nn.Sequential(*conv_norm(1280, 256), nn.Dropout(0.1))

  def forward(self, x):
    *seen, mean = (conv(x) for conv in self.convs)
    mean = F.interpolate(mean, x.shape[2:], mode="bilinear")
    return self.project(torch.cat([*seen, mean], 1))


class V3Head(nn.Module):
  def __init__(self, rates):
    super().__init__()
    self.classifier = nn.Sequential(
      Pyramid(2048, rates), *conv_norm(256, 256, 3), nn.Conv2d(256, CLASSES, 1)
    )

  def forward(self, low, high):
    return self.classifier(high)


class V3PlusHead(nn.Module):
  def __init__(self, rates):
    super().__init__()
    self.project = nn.Sequential(*conv_norm(256, 48))
    self.aspp = Pyramid(2048, rates)
    self.classifier = nn.Sequential(
      *conv_norm(304, 256, 3), nn.Conv2d(256, CLASSES, 1)
    )

  def forward(self, low, high):
    low = self.project(low)
    high = F.interpolate(self.aspp(high), low.shape[2:], mode="bilinear")
    return self.classifier(torch.cat([low, high], 1))


class VainF(nn.Module):
  """VainF's DeepLabV3 or V3+ at output stride 16."""

  def __init__(self, head):
    super().__init__()
    self.backbone = resnet(replace_stride_with_dilation=[False, False, True])
    del self.backbone.fc
    self.classifier = head((6, 12, 18))

  def forward(self, image):
    b = self.backbone
    low = b.layer1(b.maxpool(b.relu(b.bn1(b.conv1(image)))))
    high = b.layer4(b.layer3(b.layer2(low)))
    x = self.classifier(low, high)
    return F.interpolate(x, image.shape[2:], mode="bilinear")


class SemsegPSPNet(nn.Module):
  """semseg's PSPNet: deep stem, equal dilations in a stage, aligned corners."""

  def __init__(self):
    super().__init__()
    trunk = resnet()
    trunk.inplanes = 128
    block = type(trunk.layer1[0])
    stem = (*conv_norm(3, 64, 3), *conv_norm(64, 64, 3), *conv_norm(64, 128, 3))
    stem[0].stride = (2, 2)
    self.layer0 = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
    self.layer1 = trunk._make_layer(block, 64, LAYERS[0])
    self.layer2, self.layer3, self.layer4 = (
      trunk.layer2,
      trunk.layer3,
      trunk.layer4,
    )
    for layer, dilation in ((self.layer3, 2), (self.layer4, 4)):
      for unit in layer:
        unit.conv2.stride = (1, 1)
        unit.conv2.dilation = unit.conv2.padding = (dilation, dilation)
      layer[0].downsample[0].stride = (1, 1)
    self.ppm = nn.Module()
    self.ppm.features = nn.ModuleList(
      nn.Sequential(nn.AdaptiveAvgPool2d(b), *conv_norm(2048, 512))
      for b in (1, 2, 3, 6)
    )
    self.cls, self.aux = (
      nn.Sequential(
        *conv_norm(into, out, 3), nn.Dropout2d(0.1), nn.Conv2d(out, CLASSES, 1)
      )
      for into, out in ((4096, 512), (1024, 256))
    )

  def forward(self, image):
    def resize(x, size):
      return F.interpolate(x, size, mode="bilinear", align_corners=True)

    c4 = self.layer3(self.layer2(self.layer1(self.layer0(image))))
    x = self.layer4(c4)
    pyramid = [resize(pool(x), x.shape[2:]) for pool in self.ppm.features]
    x = self.cls(torch.cat([x, *pyramid], 1))
    size = image.shape[2:]
    return {
      "logits": resize(x, size),
      "aux_logits": resize(self.aux(c4), size),
    }


class DoubleConv(nn.Module):
  def __init__(self, into, out, middle=None):
    super().__init__()
    middle = middle or out
    self.double_conv = nn.Sequential(
      *conv_norm(into, middle, 3), *conv_norm(middle, out, 3)
    )

  def forward(self, x):
    return self.double_conv(x)


class Up(nn.Module):
  def __init__(self, into, out, bilinear):
    super().__init__()
    if bilinear:
      self.up = nn.UpsamplingBilinear2d(scale_factor=2)
    else:
      self.up = nn.ConvTranspose2d(into, into // 2, 2, 2)
    self.conv = DoubleConv(into, out, into // 2 if bilinear else None)

  def forward(self, x, skip):
    x = self.up(x)
    down, right = (skip.shape[i] - x.shape[i] for i in (2, 3))
    x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    return self.conv(torch.cat([skip, x], 1))


class MilesialUNet(nn.Module):
  def __init__(self, bilinear, depth=4, width=8):
    super().__init__()
    self.depth = depth
    c = [width * 2**i for i in range(depth + 1)]
    half = 2 if bilinear else 1
    self.inc = DoubleConv(3, c[0])
    outs = [*c[1:-1], c[-1] // half]
    for i, out in enumerate(outs, start=1):
      down = nn.Module()
      down.maxpool_conv = nn.Sequential(
        nn.MaxPool2d(2), DoubleConv(c[i - 1], out)
      )
      setattr(self, f"down{i}", down)
    ups = [*(width // half for width in c[-2:0:-1]), c[0]]
    for i, out in enumerate(ups, start=1):
      setattr(self, f"up{i}", Up(c[depth + 1 - i], out, bilinear))
    self.outc = nn.Module()
    self.outc.conv = nn.Conv2d(c[0], CLASSES, 1)

  def forward(self, x):
    maps = [self.inc(x)]
    for i in range(1, self.depth + 1):
      maps.append(getattr(self, f"down{i}").maxpool_conv(maps[-1]))
    x = maps.pop()
    for i in range(1, self.depth + 1):
      x = getattr(self, f"up{i}")(x, maps.pop())
    return self.outc.conv(x)


def torchvision_network(module, name):
  """Builds torchvision's network on the shallow ResNet."""
  torchvision = parity.import_original("torchvision")
  module = getattr(torchvision.models.segmentation, module)

  def shallow(*, weights, **fields):
    return resnet(**fields)

  with mock.patch.object(module, "resnet50", shallow):
    return getattr(module, name)(
      weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
    )


def smp_network(name, encoder="resnet18"):
  parity.import_original("torchvision")
  import segmentation_models_pytorch as smp

  return getattr(smp, name)(encoder, encoder_weights=None, classes=CLASSES)


def randomised(original):
  """Draws parameters and running statistics, and switches dropout off."""
  torch.manual_seed(0)
  parity.randomise(original, SIZE)
  for module in original.modules():
    if isinstance(module, nn.Dropout2d):
      module.p = 0.0
    if isinstance(module, nn.ConvTranspose2d):
      nn.init.normal_(module.weight, std=0.1)
  return original.eval()


def outputs(original, image) -> dict:
  """Returns the original's outputs by jaxseg's keys, channels last."""
  found = original(image)
  if not isinstance(found, dict):
    found = {"logits": found}
  names = {"out": "logits", "aux": "aux_logits"}
  return {
    names.get(key, key): value.permute(0, 2, 3, 1)
    for key, value in found.items()
  }
