"""Weights are refused by a network that computes something else with them."""

import json

import pytest

from jaxseg import backbones, models
from jaxseg.errors import UserError
from jaxseg.weights import field_check, network_fields

SMALL = {"name": "resnet50", "width": 4, "stage_sizes": (1, 1, 1, 1)}
V3PLUS = dict(num_classes=3, features=4, low_level_features=2)


def v3plus(**fields):
  own = {**SMALL, "output_stride": 16, **fields.pop("backbone", {})}
  return models.create("deeplab_v3plus", backbone=own, **V3PLUS, **fields)


def described(network):
  """Returns the description of a network after a trip through a file."""
  return json.loads(json.dumps(network_fields.describe(network)))


def check(here, original, changed=(), check=field_check.check_model):
  check(here, described(original), "init.model=w.npz", changed)


def test_a_network_fits_itself(capsys):
  for name in models.MODELS:
    network = models.create(name, num_classes=3)
    field_check.check_model(network, described(network), "w", ())
  trained = v3plus(dropout_rate=0.5, dtype="bfloat16", norm={
    "name": "batch", "momentum": 0.5, "frozen": True
  })  # fmt: skip
  check(v3plus(norm="batch"), trained)
  assert capsys.readouterr().out == ""


# The differences of fault 3.12b: other outputs by 1% to 46%.
@pytest.mark.parametrize(
  ("fields", "option"),
  [
    ({"align_corners": False}, "--config.model.align_corners=False"),
    ({"rates": (1, 2, 3)}, "'--config.model.rates=(1, 2, 3)'"),
    (
      {"norm": {"name": "batch", "epsilon": 0.001}},
      "--config.norm.epsilon=0.001",
    ),
    ({"norm": "group"}, "--config.norm.name=group"),
    (
      {"backbone": {"contract_dilation": False}},
      "--config.model.backbone.contract_dilation=False",
    ),
  ],
)
def test_other_fields_are_refused_with_the_options_to_set(fields, option):
  with pytest.raises(UserError) as caught:
    check(v3plus(), v3plus(**fields))
  message = str(caught.value)
  assert message.startswith("init.model=w.npz: ") and "\n" not in message
  # The norm of network and backbone is one option.
  assert f"; set {option}, or " in message


def test_another_number_of_groups_is_refused():
  group = {"name": "group", "groups": 2}
  check(v3plus(norm=group), v3plus(norm=group))
  with pytest.raises(UserError, match="--config.norm.groups=2"):
    check(v3plus(norm="group"), v3plus(norm=group))


def test_what_changes_on_purpose_is_named():
  changed = ("align_corners", "backbone.contract_dilation")
  original = v3plus(align_corners=False, backbone={"contract_dilation": False})
  check(v3plus(), original, changed)
  with pytest.raises(UserError) as caught:
    check(v3plus(), original)
  assert f'--config.init.changed="{changed}"' in str(caught.value)
  with pytest.raises(UserError, match="did you mean 'rates'"):
    field_check.check_names(v3plus(), ("rats",))
  field_check.check_names(v3plus(), (*changed, "norm.epsilon"))


def test_another_output_stride_is_printed(capsys):
  for stride in (8, 32):
    check(v3plus(backbone={"output_stride": stride}), v3plus())
    out = capsys.readouterr().out
    assert out.startswith("note: init.model=w.npz: ") and out.count("\n") == 1
    assert f"backbone.output_stride=16 ({stride} here)" in out


# Papers whose backbone differs from that of a classifier by more than dilation:
# padding, pools that keep partial windows, strides in 1x1 convolutions, and
# Caffe's epsilon.
ADAPTED = {
  "fcn_32s", "fcn_16s", "fcn_8s", "fcn_8s_at_once", "fcn_alexnet",
  "deeplab_v1", "deeplab_v2", "deformable_deeplab", "dilatednet", "deconvnet",
  "segnet", "bayesian_segnet",
}  # fmt: skip


def check_backbone(here, original):
  check(here, original, check=field_check.check_backbone)


def test_classifiers_fit_the_backbone_of_every_paper(capsys):
  noted = set()
  for name, paper in models.PAPER_BACKBONES.items():
    backbone = {"name": paper["name"]}
    if backbone["name"].startswith("resnet"):
      backbone["stem"] = "conv7"
    network = models.create(name, num_classes=3, backbone=backbone)
    classifier = models.create("classifier", num_classes=3, backbone=backbone)
    check_backbone(network.backbone, classifier.backbone)
    if capsys.readouterr().out:
      noted.add(name)
  assert noted == ADAPTED


def test_other_backbones_are_refused():
  resnet = backbones.create(SMALL)
  with pytest.raises(UserError, match=r"--config.model.backbone.stem=conv7"):
    check_backbone(backbones.create({**SMALL, "stem": "deep"}), resnet)
  group = models.create("pspnet", num_classes=2, backbone=SMALL, norm="group")
  with pytest.raises(UserError, match=r"; set --config.norm.name=batch, or"):
    check_backbone(group.backbone.clone(stem="conv7"), resnet)
