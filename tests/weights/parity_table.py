"""Compares every classification network with its PyTorch original.

  python tests/weights/parity_table.py > table.md

Each network is built in torchvision (or timm) with random weights: He-normal
kernels, random biases and scales, and random running statistics of a size that
keeps activations of order one at any depth. (Large activations would let the
sigmoid of a gate magnify rounding errors, in both frameworks.) The state dict
is converted, and both networks read the same image, whose height is even and
whose width is odd:

- evaluation: max |difference| of the logits over max |logit|, in float32;
- training: the same for the gradient of a random projection of all outputs
  with respect to every parameter, and for the updated running statistics. This
  is computed in float64, because a rounding error of float32 can flip a ReLU,
  which changes gradients by several per cent. Dropout and stochastic depth are
  off, because the frameworks draw different random numbers.

The tests in this folder call the functions of this file.
"""

from collections.abc import Iterable
import contextlib
import functools
import importlib.util
import io
import pathlib
import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import models, weights
from jaxseg.weights import paths

CLASSES = 10
SIZE = (64, 97)

# Name of a backbone -> (library, name of the network in the library).
NETWORKS = {
  "alexnet": ("torchvision", "alexnet"),
  **{
    f"vgg{n}{bn}": ("torchvision", f"vgg{n}{bn}")
    for n in (11, 13, 16, 19)
    for bn in ("", "_bn")
  },
  "googlenet": ("torchvision", "googlenet"),
  **{
    f"resnet{n}": ("torchvision", f"resnet{n}") for n in (18, 34, 50, 101, 152)
  },
  "resnext50_32x4d": ("torchvision", "resnext50_32x4d"),
  "resnext101_32x8d": ("torchvision", "resnext101_32x8d"),
  **{
    f"densenet{n}": ("torchvision", f"densenet{n}")
    for n in (121, 161, 169, 201)
  },
  "mobilenet_v2": ("torchvision", "mobilenet_v2"),
  **{
    f"efficientnet_b{n}": ("torchvision", f"efficientnet_b{n}")
    for n in range(8)
  },
  **{f"se_resnet{n}": ("timm", f"seresnet{n}") for n in (50, 101, 152)},
  "se_resnext50_32x4d": ("timm", "seresnext50_32x4d"),
  **{f"xception{n}": ("timm", f"xception{n}") for n in (41, 65)},
}

# One network of each family, which is compared in training, too.
TRAINED = (
  "alexnet",
  "vgg11_bn",
  "googlenet",
  "resnet50",
  "resnext50_32x4d",
  "densenet121",
  "mobilenet_v2",
  "efficientnet_b0",
  "se_resnet50",
  "xception41",
)


def import_original(package: str):
  """Imports torchvision or timm.

  The networks need none of torchvision's compiled operators. Where these do not
  load, a file beside the repository declares them, if it exists.
  """
  try:
    return importlib.import_module(package)
  except RuntimeError:
    stub = (
      pathlib.Path(__file__).parents[3] / "shared/tools/torchvision_cpu_stub.py"
    )
    if not stub.exists():
      raise ImportError(
        "torchvision's operators were built for another torch"
      ) from None
    for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
      del sys.modules[name]
    spec = importlib.util.spec_from_file_location(stub.stem, stub)
    # The declarations last as long as the module, so it is kept.
    sys.modules[stub.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[stub.stem])
    return importlib.import_module(package)


def abstract_original(name: str):
  """Returns the original network without any values, in PyTorch's `meta`."""
  import torch

  package, theirs = NETWORKS[name]
  import_original("torchvision")
  package = import_original(package)
  with torch.device("meta"):
    if package.__name__ == "timm":
      return package.create_model(theirs, num_classes=CLASSES)
    fields = {"init_weights": False} if theirs == "googlenet" else {}
    return getattr(package.models, theirs)(num_classes=CLASSES, **fields)


def build_original(name: str):
  """Returns the original network with random weights, in evaluation mode."""
  import torch

  model = abstract_original(name).to_empty(device="cpu")
  torch.manual_seed(0)
  randomise(model)
  return model.eval()


def zeros_of(model) -> dict[str, np.ndarray]:
  """Returns a state dict of zeros, which take no memory."""
  zero = np.zeros((), np.float32)
  return {
    key: np.broadcast_to(zero, tuple(value.shape))
    for key, value in model.state_dict().items()
  }


def random_image(count: int, dtype=np.float32, size=SIZE) -> np.ndarray:
  """Returns normal noise `[count, *size, 3]`."""
  rng = np.random.default_rng(count)
  return rng.standard_normal((count, *size, 3)).astype(dtype)


def channels_first(image: np.ndarray):
  """Converts an image to a PyTorch tensor `[n, c, h, w]`."""
  import torch

  return torch.from_numpy(image.transpose(0, 3, 1, 2))


def randomise(model, size=SIZE) -> None:
  """Draws parameters and running statistics, and switches dropout off.

  The running statistics suit an image of this size.
  """
  import torch

  hooks = []
  with torch.no_grad():
    for module in model.modules():
      if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
        torch.nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
          module.bias.normal_(0, 0.1)
      elif isinstance(module, torch.nn.BatchNorm2d):
        module.weight.uniform_(0.5, 1.5)
        # Most inputs of the ReLU are positive. Otherwise 200 random layers
        # would magnify rounding errors of the first by a factor of 1e5.
        module.bias.normal_(0.5, 0.3)
        hooks.append(module.register_forward_pre_hook(disturbed_statistics))
      elif isinstance(module, torch.nn.Dropout):
        module.p = 0.0
      elif type(module).__name__ == "StochasticDepth":
        module.p = 0.0
  image = channels_first(random_image(1, size=size))
  outputs_of(model, image, train=False)
  for hook in hooks:
    hook.remove()


def disturbed_statistics(norm, inputs) -> None:
  """Draws running statistics that scale the input of a norm to order one.

  The mean square replaces the variance. On maps of a few pixels the mean is
  much larger than the deviation, so subtracting it would magnify rounding
  errors.
  """
  import torch

  square = inputs[0].square().mean((0, 2, 3)).clamp(min=0.01)
  norm.running_mean.copy_(0.3 * square.sqrt() * torch.randn_like(square))
  norm.running_var.copy_(square * torch.empty_like(square).uniform_(0.5, 1.5))


def convert(
  name: str, state_dict, dtype: str = "float32"
) -> tuple[nn.Module, dict]:
  """Builds the network in jaxseg and converts the original's state dict."""
  library, _ = NETWORKS[name]
  fields = {}
  if name.startswith("xception"):
    # timm's momentum; jaxseg's default is the authors' 0.9997.
    fields["norm"] = {"name": "batch", "momentum": 0.9, "epsilon": 1e-3}
  model = models.create(
    "classifier",
    num_classes=CLASSES,
    backbone=name,
    dtype=dtype,
    param_dtype=dtype,
    **fields,
  )
  with contextlib.redirect_stdout(io.StringIO()):
    return model, weights.from_torch(model, state_dict, library)


def relative(ours, theirs) -> float:
  """Returns max |ours - theirs| / max |theirs|."""
  theirs = np.asarray(theirs)
  return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def largest(values: Iterable[float]) -> float:
  """Returns the largest value, 0 if there is none, NaN if any value is NaN."""
  return float(np.max([0.0, *values]))


def without_dropout(next_function, args, kwargs, context):
  """Makes every `nn.Dropout` the identity; a Flax interceptor."""
  if isinstance(context.module, nn.Dropout):
    return args[0]
  return next_function(*args, **kwargs)


def outputs_of(original, image, *, train: bool) -> dict:
  """Returns the original's outputs by jaxseg's keys, with auxiliary heads."""
  import torch

  seen = {}

  def keep(key):
    return lambda module, inputs, output: seen.update({key: output})

  hooks = []
  if hasattr(original, "aux1"):
    for key, block, aux in (
      ("aux_4a", original.inception4a, original.aux1),
      ("aux_4d", original.inception4d, original.aux2),
    ):
      if train:
        hooks.append(aux.register_forward_hook(keep(key)))
      else:
        # In evaluation the original does not apply its auxiliary heads.
        hooks.append(
          block.register_forward_hook(
            lambda module, inputs, output, key=key, aux=aux: seen.update(
              {key: aux(output)}
            )
          )
        )
  with contextlib.nullcontext() if train else torch.no_grad():
    logits = original.train(train)(image)
  for hook in hooks:
    hook.remove()
  return {"logits": getattr(logits, "logits", logits), **seen}


def evaluation_difference(name: str, original) -> float:
  """Returns the largest relative difference of any output in evaluation."""
  model, variables = convert(name, original.state_dict())
  image = random_image(1)
  theirs = outputs_of(original, channels_first(image), train=False)
  ours = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, image)
  assert ours.keys() == theirs.keys()
  return largest(relative(ours[key], theirs[key].numpy()) for key in ours)


def training_differences(name: str, original) -> tuple[float, float]:
  """Returns the largest differences of gradients and of running statistics."""
  image = random_image(4, np.float64)
  projection = np.random.default_rng(0).standard_normal((4, CLASSES))
  original = original.double()
  with jax.enable_x64():
    model, variables = convert(name, original.state_dict(), "float64")
    state = state_after_backward(original, image, projection)
    _, expected = convert(name, state, "float64")
    gradients, updates = train_gradients(model, variables, image, projection)
  return (
    largest_difference(gradients, expected["params"]),
    largest_difference(updates.get("batch_stats", {}), expected["batch_stats"]),
  )


def train_gradients(model, variables, image, projection) -> tuple[dict, dict]:
  """Returns the gradients of the projection, and updated running statistics."""

  # The step runs once, so the compiler does not optimise it.
  @functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
  )
  def step(variables, image):
    def loss(params):
      with nn.intercept_methods(without_dropout):
        outputs, updates = model.apply(
          {**variables, "params": params},
          image,
          train=True,
          mutable=["batch_stats"],
        )
      total = sum(jnp.sum(o * projection) for o in outputs.values())
      return total, updates

    return jax.grad(loss, has_aux=True)(variables["params"])

  return jax.device_get(step(variables, image))


def state_after_backward(original, image, projection) -> dict:
  """Returns a state dict of gradients, and of running statistics as in Flax."""
  import torch

  state = {k: v.clone() for k, v in original.state_dict().items()}
  counts = count_values(original)
  outputs = outputs_of(original, channels_first(image), train=True)
  original.zero_grad()
  weight = torch.from_numpy(projection)
  sum((o * weight).sum() for o in outputs.values()).backward()
  for key, value in original.named_parameters():
    state[key] = value.grad
  for key, (module, seen) in counts.items():
    # PyTorch's running variance uses the unbiased variance, n / (n - 1) times
    # that of Flax.
    m, n = module.momentum, seen[-1]
    before = state[f"{key}.running_var"]
    batch = (module.running_var - (1 - m) * before) / m * (n - 1) / n
    state[f"{key}.running_var"] = (1 - m) * before + m * batch
    state[f"{key}.running_mean"] = module.running_mean
  return state


def count_values(original) -> dict:
  """Records how many values per channel each norm reads in later calls.

  Returns:
    Name of each norm -> (the norm, list with one number per call).
  """
  import torch

  counts = {}
  for key, module in original.named_modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      seen = []
      module.register_forward_hook(
        lambda module, inputs, output, seen=seen: seen.append(
          inputs[0].numel() // inputs[0].shape[1]
        )
      )
      counts[key] = (module, seen)
  return counts


def relative_by_path(ours, theirs, floor: float = 0.0) -> dict[str, float]:
  """Returns the relative difference of each array.

  The gradient of a bias before a norm is zero except for rounding errors. The
  denominator of each array is therefore at least `floor` times the largest
  value of all arrays.
  """
  ours, theirs = paths.flatten(ours), paths.flatten(theirs)
  assert ours.keys() == theirs.keys()
  most = largest(np.max(np.abs(v)) for v in theirs.values())
  return {
    path: float(
      np.max(np.abs(ours[path] - value))
      / max(np.max(np.abs(value)), floor * most)
    )
    for path, value in theirs.items()
  }


def largest_difference(ours, theirs) -> float:
  """Returns the largest relative difference of all arrays."""
  return largest(relative_by_path(ours, theirs, 1e-2).values())


def row(name: str) -> str:
  """Returns one row of the table."""
  package, theirs = NETWORKS[name]
  original = build_original(name)
  count = sum(p.numel() for p in original.parameters())
  # The published number has 1000 classes.
  shapes = [tuple(p.shape) for p in original.parameters()]
  classifiers = [s[1] for s in shapes if len(s) == 2 and s[0] == CLASSES]
  count += sum((1000 - CLASSES) * (width + 1) for width in classifiers)
  version = re.match(r"\d+\.\d+", import_original(package).__version__)[0]
  evaluation = f"{evaluation_difference(name, original):.1e}"
  gradients = ""
  if name in TRAINED:
    gradients = f"{training_differences(name, original)[0]:.1e}"
  return (
    f"| `{name}` | {count:,} | {package} {version} `{theirs}` | {evaluation} "
    f"| {gradients} |"
  )


def main() -> None:
  print(
    "| architecture | parameters | library | max abs(Δ) eval "
    "| max abs(Δ) gradients |"
  )
  print("|---|---:|---|---:|---:|")
  for name in NETWORKS:
    print(row(name), flush=True)


if __name__ == "__main__":
  main()
