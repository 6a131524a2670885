"""Compilation in a hurry."""

import jax


def quick_jit(f):
  """`jax.jit` for what runs once: it compiles fast and runs slowly."""
  return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})
