"""Every classification network against its PyTorch original, as a table.

  python tests/weights/parity_table.py > table.md

Each network is built in torchvision (or timm) without weights and filled with
random ones: He-normal kernels, random biases and scales, and random running
statistics of a size that keeps activations of order one through any depth.
(Where they grow, a gate's sigmoid turns rounding errors into another network,
in PyTorch as here.) Its state dict is converted, and both networks read the
same image, even in height and odd in width:

- evaluation: max |difference| of the logits over max |logit|, float32;
- training: the same for every parameter's gradient of a random projection of
  all outputs, and for the updated running statistics. In float64, for in
  float32 a rounding error may take the other side of a ReLU, and whole
  gradients differ by per cents. Dropout and stochastic depth are off, since
  the two frameworks draw different numbers.

The tests next to this file run its functions.
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

# Ours: the package, and their name.
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

# One of each family is compared in training too.
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
  """torchvision or timm, also where torchvision's operators do not load.

  The networks need none of its compiled operators; a file beside the
  repository declares them, if there is one.
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
    # Kept: what a library declares is gone when it is collected.
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
  """Normal noise `[count, *size, 3]`."""
  rng = np.random.default_rng(count)
  return rng.standard_normal((count, *size, 3)).astype(dtype)


def channels_first(image: np.ndarray):
  """The same image as PyTorch reads it."""
  import torch

  return torch.from_numpy(image.transpose(0, 3, 1, 2))


def randomise(model, size=SIZE) -> None:
  """Random parameters and running statistics; no dropout.

  The statistics are those of an image of this size.
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
        # Mostly above the ReLU's kink: without it 200 random layers magnify
        # the rounding errors of the first a hundred thousand times.
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
  """Random running statistics that bring what a norm reads to order one.

  The mean square stands for the variance: on maps of a few pixels the mean is
  much the larger, and to subtract it is to magnify rounding errors.
  """
  import torch

  square = inputs[0].square().mean((0, 2, 3)).clamp(min=0.01)
  norm.running_mean.copy_(0.3 * square.sqrt() * torch.randn_like(square))
  norm.running_var.copy_(square * torch.empty_like(square).uniform_(0.5, 1.5))


def convert(
  name: str, state_dict, dtype: str = "float32"
) -> tuple[nn.Module, dict]:
  """Our network and its variables from the original's state dict."""
  library, _ = NETWORKS[name]
  fields = {}
  if name.startswith("xception"):
    # timm's momentum; ours is the authors' 0.9997.
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
  """max |ours - theirs| over max |theirs|."""
  theirs = np.asarray(theirs)
  return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def largest(values: Iterable[float]) -> float:
  """0 of none; NaN if any is, wherever it stands."""
  return float(np.max([0.0, *values]))


def without_dropout(next_function, args, kwargs, context):
  """An interceptor that makes every `nn.Dropout` the identity."""
  if isinstance(context.module, nn.Dropout):
    return args[0]
  return next_function(*args, **kwargs)


def outputs_of(original, image, *, train: bool) -> dict:
  """Their outputs under our names, auxiliary heads included."""
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
        # In evaluation the original leaves its auxiliary heads out.
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
  """Largest relative difference of any output in evaluation mode."""
  model, variables = convert(name, original.state_dict())
  image = random_image(1)
  theirs = outputs_of(original, channels_first(image), train=False)
  ours = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, image)
  assert ours.keys() == theirs.keys()
  return largest(relative(ours[key], theirs[key].numpy()) for key in ours)


def training_differences(name: str, original) -> tuple[float, float]:
  """Largest relative differences of gradients and of running statistics."""
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
  """Of the projection of every output, and the updated running statistics."""

  # Run once, so compiled in a hurry.
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
  """A state dict of gradients, and of running statistics as ours are."""
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
    # Torch mixes in the unbiased variance, n / (n - 1) of ours.
    m, n = module.momentum, seen[-1]
    before = state[f"{key}.running_var"]
    batch = (module.running_var - (1 - m) * before) / m * (n - 1) / n
    state[f"{key}.running_var"] = (1 - m) * before + m * batch
    state[f"{key}.running_mean"] = module.running_mean
  return state


def count_values(original) -> dict:
  """For each norm, by name, how many values a channel had when last run."""
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
  """`relative` of each array; one that ought to be zero is held to the others.

  A bias before a norm has no gradient but what rounding leaves: an array's
  largest value counts as `floor` of the largest of all at least.
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
  """Over all arrays."""
  return largest(relative_by_path(ours, theirs, 1e-2).values())


def row(name: str) -> str:
  """One line of the table."""
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
