"""A state dict is loaded completely or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import backbones, models, weights
from jaxseg.errors import UserError

SMALL = {"name": "resnet18", "width": 4}


def refused(capsys, *args, **kwargs) -> tuple[str, list[str]]:
  """Returns the error and the lines of the table before it."""
  with pytest.raises(UserError) as caught:
    weights.from_torch(*args, **kwargs)
  assert "\n" not in str(caught.value)
  return str(caught.value), capsys.readouterr().err.splitlines()


def test_every_array_is_loaded_at_its_path(classifier, state_dict, capsys):
  variables = weights.from_torch(classifier, state_dict)
  params, stats = variables["params"], variables["batch_stats"]
  np.testing.assert_array_equal(
    params["backbone"]["stem"]["conv"]["kernel"],
    state_dict["conv1.weight"].transpose(2, 3, 1, 0),
  )
  block = params["backbone"]["stage3_block1"]
  np.testing.assert_array_equal(
    block["project"]["conv"]["kernel"],
    state_dict["layer3.0.downsample.0.weight"].transpose(2, 3, 1, 0),
  )
  for ours, theirs in {"scale": "weight", "bias": "bias"}.items():
    np.testing.assert_array_equal(
      block["conv2"]["norm"][ours], state_dict[f"layer3.0.bn2.{theirs}"]
    )
  for ours in ("mean", "var"):
    np.testing.assert_array_equal(
      stats["backbone"]["stage3_block1"]["conv2"]["norm"][ours],
      state_dict[f"layer3.0.bn2.running_{ours}"],
    )
  np.testing.assert_array_equal(
    params["head"]["classifier"]["kernel"], state_dict["fc.weight"].T
  )
  # 20 convolutions, 20 norms of four arrays, a kernel and a bias.
  assert len(jax.tree.leaves(variables)) == 20 + 80 + 2
  line = capsys.readouterr().out
  count = sum(
    value.size
    for name, value in state_dict.items()
    if "running" not in name and "num_batches" not in name
  )
  assert line.count("\n") == 1
  assert f"102 of 102 arrays, {count:,} of {count:,} parameters" in line


def test_the_result_fits_the_network(classifier, state_dict):
  variables = weights.from_torch(classifier, state_dict)
  image = jnp.zeros((1, 33, 40, 3))
  outputs = jax.eval_shape(
    lambda v: classifier.apply(v, image, train=False), variables
  )
  assert outputs["logits"].shape == (1, 5)


def test_a_backbone_alone_leaves_the_head(state_dict, capsys):
  variables = weights.from_torch(backbones.create(SMALL), state_dict)
  assert "stem" in variables["params"] and "head" not in variables["params"]
  assert "100 of 100 arrays" in capsys.readouterr().out


def test_skip_reads_paths_of_a_backbone_alone(state_dict):
  backbone = backbones.create(SMALL)
  variables = weights.from_torch(backbone, state_dict, skip=["^stem/"])
  assert "stem" not in variables["params"]
  assert "stage1_block1" in variables["params"]


def test_skipped_parts_are_left_out_and_named(state_dict, capsys):
  model = models.create("classifier", num_classes=2, backbone=SMALL)
  variables = weights.from_torch(model, state_dict, skip=["^head/", "stage4"])
  assert "head" not in variables["params"]
  assert "stage4_block1" not in variables["params"]["backbone"]
  assert "stage3_block1" in variables["params"]["backbone"]
  assert "not loaded: backbone, head" in capsys.readouterr().out


def test_missing_and_unexpected_are_one_aligned_report(
  classifier, state_dict, capsys
):
  state_dict["layer1.0.conv1.wieght"] = state_dict.pop("layer1.0.conv1.weight")
  del state_dict["bn1.running_mean"]
  error, report = refused(capsys, classifier, state_dict)
  assert "2 missing, 1 unexpected, 0 mis-shaped of 102" in error
  missing = [line for line in report if line.lstrip().startswith("missing")]
  assert len(missing) == 2 and len(report) == 4
  asked = next(line for line in missing if "stage1_block1" in line)
  assert "layer1.0.conv1.weight (the file has layer1.0.conv1.wieght)" in asked
  # The last parts of all rows are aligned.
  columns = {
    report[1].index("needs"),
    report[2].index("needs"),
    report[3].index("(4, 4, 3, 3)"),
  }
  assert len(columns) == 1


def test_nothing_is_loaded_when_something_is_unexpected(
  classifier, state_dict, capsys
):
  state_dict["ema.decay"] = np.zeros(1)
  error, _ = refused(capsys, classifier, state_dict)
  assert "0 missing, 1 unexpected" in error


def test_wrong_class_count_names_the_fix(state_dict, capsys):
  model = models.create("classifier", num_classes=21, backbone=SMALL)
  error, report = refused(capsys, model, state_dict, label="w.pth")
  assert "w.pth" in error and "skip=('classifier',)" in error
  assert any("file (32, 5), here (32, 21)" in line for line in report)


def test_another_architecture(state_dict, capsys):
  model = models.create("classifier", num_classes=5, backbone="vgg11")
  error, report = refused(capsys, model, state_dict)
  assert "holds another network" in error
  assert len(report) < 40


def test_another_depth(state_dict, capsys):
  backbone = {"name": "resnet34", "width": 4}
  model = models.create("classifier", num_classes=5, backbone=backbone)
  error, _ = refused(capsys, model, state_dict)
  # 16 blocks for 8: 16 more convolutions and norms.
  assert "80 missing, 0 unexpected" in error


def test_modules_that_the_library_does_not_have(state_dict, capsys):
  backbone = {**SMALL, "stem": "deep"}
  model = models.create("classifier", num_classes=5, backbone=backbone)
  error, report = refused(capsys, model, state_dict)
  assert "missing" in error
  assert any(
    "stem3" in line and "not part of this library" in line for line in report
  )


def test_unknown_libraries_and_patterns(classifier, state_dict):
  for kwargs, message in [
    ({"library": "torchvison"}, "did you mean 'torchvision'"),
    ({"skip": ("haed",)}, "begin with backbone, head"),
    ({"skip": ("head(",)}, "not a regular expression"),
  ]:
    with pytest.raises(UserError, match=message):
      weights.from_torch(classifier, state_dict, **kwargs)
  xception = backbones.create("xception41")
  with pytest.raises(UserError, match="no Xception; expected timm"):
    weights.from_torch(xception, state_dict, "torchvision")


@pytest.mark.parametrize("channels", [1, 4])
def test_adapted_input_channels_are_reported(
  classifier, state_dict, channels, capsys
):
  variables = weights.from_torch(classifier, state_dict, in_channels=channels)
  kernel = variables["params"]["backbone"]["stem"]["conv"]["kernel"]
  assert kernel.shape == (7, 7, channels, 4)
  line = capsys.readouterr().out
  assert f"input channels adapted from 3 to {channels}" in line


def test_a_wrong_first_kernel_is_not_adapted(classifier, state_dict, capsys):
  state_dict["conv1.weight"] = np.zeros((4, 3, 3, 3), np.float32)
  error, _ = refused(capsys, classifier, state_dict)
  assert "1 mis-shaped" in error


def test_old_densenet_names(capsys):
  """Files older than torchvision 0.3 contain `norm.1` and `conv.1`."""
  backbone = {
    "name": "densenet121",
    "block_sizes": (1, 1, 1, 1),
    "growth": 2,
    "stem_features": 4,
  }
  shapes = {"features.conv0.weight": (4, 3, 7, 7)}
  norms, width = {"features.norm0": 4}, 4
  for i in range(1, 5):
    layer = f"features.denseblock{i}.denselayer1"
    shapes[f"{layer}.conv.1.weight"] = (8, width, 1, 1)
    shapes[f"{layer}.conv.2.weight"] = (2, 8, 3, 3)
    norms |= {f"{layer}.norm.1": width, f"{layer}.norm.2": 8}
    width += 2
    if i < 4:
      transition = f"features.transition{i}"
      norms[f"{transition}.norm"] = width
      shapes[f"{transition}.conv.weight"] = (width // 2, width, 1, 1)
      width //= 2
  norms["features.norm5"] = width
  shapes |= {"classifier.weight": (5, width), "classifier.bias": (5,)}
  for norm, size in norms.items():
    for entry in ("weight", "bias", "running_mean", "running_var"):
      shapes[f"{norm}.{entry}"] = (size,)
  state = {name: np.zeros(shape) for name, shape in shapes.items()}
  model = models.create("classifier", num_classes=5, backbone=backbone)
  weights.from_torch(model, state)
  assert f"{len(shapes)} of {len(shapes)} arrays" in capsys.readouterr().out
