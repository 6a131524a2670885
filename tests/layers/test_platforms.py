"""The formulation follows the platform that is lowered for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.layers.conv import convolve
from jaxseg.layers.pool import max_pool
from jaxseg.layers.transposed import conv_transpose

X = jax.ShapeDtypeStruct((2, 9, 8, 4), jnp.float32)
DEPTHWISE = jax.ShapeDtypeStruct((3, 3, 1, 4), jnp.float32)
GROUPED = jax.ShapeDtypeStruct((3, 3, 2, 4), jnp.float32)
STAMP = jax.ShapeDtypeStruct((4, 4, 4, 2), jnp.float32)


def pool(x):
  return max_pool(x, 3, 2, padding=1)


def depthwise(x, kernel):
  return convolve(x, kernel, strides=2, groups=4)


def grouped(x, kernel):
  return convolve(x, kernel, padding=[(1, 1), (1, 1)], groups=2)


def transposed(x, kernel):
  return conv_transpose(x, kernel, strides=2, padding=1)


# Function, arguments, and a pattern of XLA's own operator in lowered code: a
# window, a convolution with groups, a convolution over dilated input.
CASES = {
  "pool": (pool, (X,), "reduce_window"),
  "depthwise": (depthwise, (X, DEPTHWISE), "feature_group_count = 4"),
  "grouped": (grouped, (X, GROUPED), "feature_group_count = 2"),
  "transposed": (transposed, (X, STAMP), r"lhs_dilate = \[2, 2\]"),
}
cases = pytest.mark.parametrize("case", CASES)


def values(specs, seed=0):
  rng = np.random.default_rng(seed)
  return [jnp.asarray(rng.normal(size=s.shape), s.dtype) for s in specs]


def plus_gradients(function):
  def run(*arguments):
    y, pull = jax.vjp(function, *arguments)
    return y, *pull(jnp.cos(y))

  return run


@cases
@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_lowered_code_has_the_platforms_operator(case, platform):
  """CPU tests cannot run the others, but they can lower for them."""
  function, specs, operator = CASES[case]
  traced = jax.jit(function).trace(*specs)
  code = traced.lower(lowering_platforms=(platform,)).as_text()
  assert bool(re.search(operator, code)) == (platform != "cpu")


@cases
def test_exported_code_holds_both(case):
  """An artefact for two platforms decides where it is loaded."""
  function, specs, operator = CASES[case]
  exported = jax.export.export(jax.jit(function), platforms=("cpu", "tpu"))(
    *specs
  )
  assert re.search(operator, exported.mlir_module())
  arguments = values(specs)
  np.testing.assert_allclose(
    exported.call(*arguments), function(*arguments), atol=1e-6
  )


@cases
def test_one_branch_is_compiled(case):
  """No conditional is left in the compiled function and its gradient."""
  function, specs, _ = CASES[case]
  compiled = (
    jax.jit(plus_gradients(function))
    .lower(*specs)
    .compile({"xla_backend_optimization_level": "2"})
  )
  assert "conditional" not in compiled.as_text()


@cases
def test_transformations(case):
  """Eager, jit, eval_shape, vmap, forward mode and reverse mode agree."""
  function, specs, _ = CASES[case]
  arguments, tangents = values(specs), values(specs, seed=1)
  y = function(*arguments)
  np.testing.assert_allclose(jax.jit(function)(*arguments), y, atol=1e-6)
  assert jax.eval_shape(function, *specs).shape == y.shape
  several = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), arguments)
  for i, part in enumerate(jax.vmap(function)(*several)):
    alone = function(*(a[i] for a in several))
    np.testing.assert_allclose(part, alone, atol=1e-5)
  _, forward = jax.jvp(function, tuple(arguments), tuple(tangents))
  pulled = jax.vjp(function, *arguments)[1](jnp.ones_like(y))
  np.testing.assert_allclose(
    sum(jnp.vdot(a, b) for a, b in zip(pulled, tangents, strict=True)),
    forward.sum(),
    rtol=1e-3,
  )
  remade = jax.jit(plus_gradients(jax.checkpoint(function)))(*arguments)
  for a, b in zip(remade, plus_gradients(function)(*arguments), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@cases
def test_runs_mapped_over_devices(case):
  """Under shard_map with its replication check, and under pmap."""
  function, specs, _ = CASES[case]
  x, *kernel = values(specs)
  run = plus_gradients(function)
  y, dx, *_ = run(x, *kernel)
  mesh = jax.make_mesh(
    (2,),
    ("batch",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:2],
  )
  split, whole = jax.P("batch"), jax.P()
  mapped = jax.jit(
    jax.shard_map(
      lambda *arguments: run(*arguments)[:2],
      mesh=mesh,
      in_specs=(split, *(whole for _ in kernel)),
      out_specs=split,
    )
  )
  for got, want in zip(mapped(x, *kernel), (y, dx), strict=True):
    np.testing.assert_allclose(got, want, atol=1e-5)
  pmapped = jax.pmap(function, in_axes=(0, *(None for _ in kernel)))
  got = pmapped(x[:, None], *kernel)
  np.testing.assert_allclose(got[:, 0], y, atol=1e-5)
