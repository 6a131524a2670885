"""FCN: published counts, sizes, crops and fields; the prototxts in torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from config_files import load_config
from jaxseg import models, weights
from jaxseg.analysis import measure_receptive_field, network_shapes, total_size
from jaxseg.backbones import geometry
from jaxseg.errors import UserError
from jaxseg.models import fcn
from random_variables import he_positive
import torch_parity

# By arithmetic from the layer lists: 14,714,688 in the trunk, 119,545,856 in
# fc6 and fc7; 4097 C, 513 C and 257 C in the scores.
COUNTS = {
  ("fcn_32s", 21): 134_346_581,
  ("fcn_16s", 21): 134_357_354,
  ("fcn_8s", 21): 134_362_751,
  ("fcn_8s_at_once", 21): 134_362_751,
  ("fcn_32s", 11): 134_305_611,
  ("fcn_16s", 11): 134_311_254,
  ("fcn_8s", 11): 134_314_081,
  ("fcn_8s", 12): 134_318_948,
  ("fcn_8s", 40): 134_455_224,
  ("fcn_alexnet", 21): 56_954_261,
}
# Side of the image, and of the maps of five pools, fc6 and upsampled scores.
SIZES = {
  500: ((349, 175, 88, 44, 22), 16, {"fcn_32s": 544, "fcn_16s": 560}),
  480: ((339, 170, 85, 43, 22), 16, {"fcn_8s": 568}),
  360: ((279, 140, 70, 35, 18), 12, {"fcn_8s": 440}),
  224: ((211, 106, 53, 27, 14), 8, {"fcn_8s": 312}),
  32: ((115, 58, 29, 15, 8), 2, {"fcn_32s": 96}),
}
# Layers that each stage adds to the previous one.
ADDED = {
  "fcn_16s": {"score_pool4", "upscore2", "upscore"},
  "fcn_8s": {"score_pool3", "upscore_pool4", "upscore"},
}
VGG = {"name": "vgg16", "width": 2}
TINY = {"backbone": VGG, "head_features": 8}
TINY_ALEXNET = {
  "backbone": {"name": "caffenet", "widths": (4, 4, 4, 4, 4)},
  "head_features": 8,
}


def _create(name, num_classes=5, **fields):
  tiny = TINY_ALEXNET if name == "fcn_alexnet" else TINY
  return models.create(name, num_classes=num_classes, **{**tiny, **fields})


@pytest.fixture
def crops(monkeypatch):
  """Returns the side before, the offset and the size of every crop."""
  seen, crop = [], fcn.crop

  def record(x, start, size):
    seen.append((x.shape[1], start, size[0]))
    return crop(x, start, size)

  monkeypatch.setattr(fcn, "crop", record)
  return seen


@pytest.mark.parametrize(("name", "classes"), COUNTS)
def test_published_parameter_counts(name, classes):
  model = models.create(name, num_classes=classes)
  _, variables = network_shapes(model, (64, 64))
  assert total_size(variables["params"]) == COUNTS[name, classes]


def test_learned_upsampling_counts_its_kernels():
  """Dense kernels of C * C * k * k, with k = 4, 4 and 16 in FCN-8s."""
  for which, kernels in (("intermediate", 32), ("all", 32 + 256)):
    model = models.create("fcn_8s", num_classes=21, learned_upsampling=which)
    _, variables = network_shapes(model, (64, 64))
    assert total_size(variables["params"]) == 134_362_751 + 21 * 21 * kernels


@pytest.mark.parametrize("side", [500, 224, 333])
@pytest.mark.parametrize(
  ("name", "offsets"),
  [
    ("fcn_32s", [19]),
    ("fcn_16s", [5, 27]),
    ("fcn_8s", [5, 9, 31]),
    ("fcn_8s_at_once", [5, 9, 31]),
    ("fcn_alexnet", [18]),
  ],
)
def test_computed_crops_are_the_prototxts(name, offsets, side, crops):
  network_shapes(_create(name), (side, side))
  assert [start for _, start, _ in crops] == offsets


def test_kernels_are_the_prototxts():
  """64 for VGG; 63 for AlexNet, whose offset would otherwise be 18.5."""
  for name, kernel_size in (("fcn_32s", 64), ("fcn_alexnet", 63)):
    model = _create(name)
    grid = geometry.grids(model.backbone)["c5"]
    grid = grid.through(geometry.Window(model.head_kernel_size))
    assert fcn.fitting_kernel(grid, geometry.Grid())[0] == kernel_size


@pytest.mark.parametrize("side", SIZES)
def test_maps_have_the_published_sizes(side, crops):
  pools, fc6, scores = SIZES[side]
  for name, upsampled in scores.items():
    crops.clear()
    model = _create(name)
    _, seen = network_shapes(
      model,
      (side, side + 1),
      capture_intermediates=lambda module, _: (
        module.name in ("backbone", "fc6")
      ),
    )
    levels = seen["intermediates"]["backbone"]["__call__"][0]
    assert tuple(levels[f"c{i}"].shape[1] for i in range(1, 6)) == pools
    fc6_map = seen["intermediates"]["head"]["fc6"]["__call__"][0]
    assert fc6_map.shape[1] == fc6
    assert crops[-1][0] == upsampled


def test_crops_of_a_500_image(crops):
  """Crops of 34 from 44 at 5, of 70 from 88 at 9, and of 500 from 568 at 31."""
  network_shapes(_create("fcn_8s"), (500, 500))
  assert crops == [(44, 5, 34), (88, 9, 70), (568, 31, 500)]


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (65, 97), (224, 301)])
@pytest.mark.parametrize(
  "name", ["fcn_32s", "fcn_16s", "fcn_8s", "fcn_alexnet"]
)
def test_images_of_any_size(name, size):
  outputs, _ = network_shapes(_create(name), size)
  assert set(outputs) == {"logits"}
  assert outputs["logits"].shape == (1, *size, 5)
  assert outputs["logits"].dtype == jnp.float32


def test_four_channels_make_an_early_fusion():
  """RGB-D (Sec. 4.4 and Table 4): only conv1_1 differs, by 9 * 64."""
  model = models.create("fcn_32s", num_classes=40)
  _, rgb = network_shapes(model, (33, 47))
  outputs, rgbd = network_shapes(model, (33, 47), channels=4)
  assert outputs["logits"].shape == (1, 33, 47, 40)
  assert total_size(rgbd) - total_size(rgb) == 9 * 64


def test_initial_scores_are_zero():
  model = _create("fcn_8s")
  image = jax.random.normal(jax.random.key(1), (1, 9, 13, 3))
  outputs, variables = jax.jit(
    functools.partial(model.init_with_output, train=False)
  )(jax.random.key(0), image)
  np.testing.assert_array_equal(outputs["logits"], 0)
  for name in ("score_fr", "score_pool4", "score_pool3"):
    np.testing.assert_array_equal(variables["params"][name]["kernel"], 0)


def test_initial_learned_upsampling_equals_the_fixed_one():
  image = np.random.default_rng(1).standard_normal((1, 40, 33, 3), np.float32)
  fixed, learned = (
    _create("fcn_8s", learned_upsampling=which)
    for which in ("none", "intermediate")
  )
  variables = he_positive(network_shapes(fixed, (40, 33))[1])
  fresh = jax.jit(functools.partial(learned.init, train=False))(
    jax.random.key(0), image
  )
  added = {
    k: v for k, v in fresh["params"].items() if k not in variables["params"]
  }
  assert set(added) == {"upscore2", "upscore_pool4"}
  expected, y = (
    jax.jit(functools.partial(model.apply, train=False))(v, image)["logits"]
    for model, v in (
      (fixed, variables),
      (learned, {"params": {**variables["params"], **added}}),
    )
  )
  np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())


def test_at_once_scales_the_maps_of_the_skips():
  """Scaling maps by 0.01 and 0.0001 equals scaling the score kernels."""
  image = np.random.default_rng(1).standard_normal((1, 20, 33, 3), np.float32)
  staged, at_once = _create("fcn_8s"), _create("fcn_8s_at_once")
  variables = he_positive(network_shapes(staged, (20, 33))[1])
  scaled = jax.tree.map(np.copy, variables)
  scaled["params"]["score_pool4"]["kernel"] *= 0.01
  scaled["params"]["score_pool3"]["kernel"] *= 0.0001
  y, expected = (
    jax.jit(functools.partial(model.apply, train=False))(v, image)["logits"]
    for model, v in ((at_once, variables), (staged, scaled))
  )
  np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "side", "field"), [("fcn_32s", 512, 404), ("fcn_alexnet", 420, 355)]
)
def test_receptive_field_of_fc7(name, side, field):
  model = _create(name)
  measured = measure_receptive_field(model, (side, side), layer="head", draws=3)
  assert measured == ((field, field), (32, 32))


@pytest.mark.parametrize("learned", ["none", "intermediate", "all"])
def test_stages_start_from_one_another(learned, tmp_path, capsys):
  """New layers keep their initial values, others come from the last stage."""
  previous = None
  for name in ("fcn_32s", "fcn_16s", "fcn_8s"):
    model = _create(name, learned_upsampling=learned)
    fresh = he_positive(network_shapes(model, (9, 9))[1])
    if previous is not None:
      skip = load_config(name).init.skip
      variables = weights.initialise(model, fresh, model=str(path), skip=skip)
      assert jax.tree.structure(variables) == jax.tree.structure(fresh)
      for part, value in variables["params"].items():
        source = fresh if part in ADDED[name] else previous
        jax.tree.map(
          np.testing.assert_array_equal, value, source["params"][part]
        )
    # They differ from the next stage's.
    previous = jax.tree.map(lambda a: a + 1, fresh)
    path = tmp_path / f"{name}.npz"
    weights.save(path, previous)


def test_skip_names_the_layers_that_a_stage_adds(tmp_path):
  stages = [_create(name) for name in ("fcn_32s", "fcn_16s")]
  first, second = (
    he_positive(network_shapes(model, (9, 9))[1]) for model in stages
  )
  path = tmp_path / "first.npz"
  weights.save(path, first)
  weights.initialise(stages[1], second, model=str(path), skip=("score_pool4",))
  with pytest.raises(UserError, match="missing"):
    weights.initialise(stages[1], second, model=str(path))


@pytest.mark.parametrize(
  ("name", "fields", "names"),
  [
    ("fcn_8s", {"stride": 12}, ["stride=12", "expected a stride of 32"]),
    ("fcn_8s", {"skip_scales": (0.1,)}, ["(0.1,)", "0, 1, 2"]),
    ("fcn_8s", {"learned_upsampling": "al"}, ["did you mean 'all'"]),
    (
      "fcn_32s",
      {"backbone": {**VGG, "output_stride": 8}},
      ["VGG with output_stride 8", "output_stride 32"],
    ),
    (
      "fcn_32s",
      {"backbone": {**VGG, "padding": 70}},
      ["does not cover 60x60", "backbone.padding"],
    ),
    (
      "fcn_32s",
      {"backbone": {**VGG, "padding": 1}},
      ["image of 60x60", "193x193"],
    ),
  ],
)
def test_errors_are_one_line(name, fields, names):
  with pytest.raises(UserError) as error:
    network_shapes(_create(name, **fields), (60, 60))
  assert all(part in str(error.value) for part in names), error.value
  assert "\n" not in str(error.value)


def _bilinear(torch, classes, size):
  """Returns Caffe's filler on the diagonal, as surgery.upsample_filt does."""
  factor = (size + 1) // 2
  centre = factor - 1 if size % 2 else factor - 0.5
  y, x = np.ogrid[:size, :size]
  stamp = (1 - abs(y - centre) / factor) * (1 - abs(x - centre) / factor)
  kernel = np.zeros((classes, classes, size, size))
  kernel[range(classes), range(classes)] = stamp
  return torch.from_numpy(kernel)


def _prototxt(params, image, stride):
  """Applies voc-fcn32s or voc-fcn8s, layer by layer, to PyTorch tensors."""
  torch = pytest.importorskip("torch")
  f = torch.nn.functional

  def conv(x, name, padding=0, inner="/conv"):
    kernel = params[f"{name}{inner}/kernel"].permute(3, 2, 0, 1)
    return f.conv2d(x, kernel, params[f"{name}{inner}/bias"], 1, padding)

  def deconv(x, size, stride):
    return f.conv_transpose2d(
      x, _bilinear(torch, x.shape[1], size), None, stride
    )

  def crop(x, start, like):
    h, w = like.shape[2:]
    return x[:, :, start : start + h, start : start + w]

  x, pools = image, []
  for s, count in enumerate((2, 2, 3, 3, 3), start=1):
    for b in range(1, count + 1):
      padding = 100 if s == b == 1 else 1
      x = conv(x, f"backbone/conv{s}_{b}", padding).relu()
    x = f.max_pool2d(x, 2, 2, ceil_mode=True)
    pools.append(x)
  x = conv(x, "head/fc6", inner="").relu()
  x = conv(x, "head/fc7", inner="").relu()
  score = conv(x, "score_fr", inner="")
  if stride == 32:
    return crop(deconv(score, 64, 32), 19, image)
  up = deconv(score, 4, 2)
  up = up + crop(conv(pools[3], "score_pool4", inner=""), 5, up)
  up = deconv(up, 4, 2)
  up = up + crop(conv(pools[2], "score_pool3", inner=""), 9, up)
  return crop(deconv(up, 16, 8), 31, image)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "stride"), [("fcn_32s", 32), ("fcn_8s", 8)])
def test_equals_the_prototxt_in_torch(name, stride):
  """Logits and gradients, in float64, where no ReLU or maximum flips."""
  image = np.random.default_rng(2).standard_normal((1, 57, 70, 3))
  original = functools.partial(_prototxt, stride=stride)
  with jax.enable_x64():
    model = _create(name, dtype="float64", param_dtype="float64")
    shapes = network_shapes(model, (57, 70))[1]
    variables = he_positive(shapes, np.float64)
    torch_parity.assert_equal(original, model, variables, image, train=False)
