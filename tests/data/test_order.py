"""The order of examples equals its definition with jax.random."""

import jax
import numpy as np
import pytest

from jaxseg.data import order
from jaxseg.errors import UserError


def law(position: int, n: int, seed: int) -> int:
  """Returns the index of the example at a position of the stream."""
  key = jax.random.fold_in(jax.random.key(seed), position // n)
  return int(jax.random.permutation(key, n)[position % n])


@pytest.mark.parametrize("n, batch_size", [(7, 4), (3, 8), (5, 5), (1, 3)])
def test_order_equals_its_definition(n, batch_size):
  share = order.Share("train.batch_size", batch_size)
  for step in (0, 1, 2, 9):
    found = order.train_indices(step, n, 3, share)
    positions = step * batch_size + np.arange(batch_size)
    np.testing.assert_array_equal(found, [law(p, n, 3) for p in positions])


def test_nothing_is_dropped_and_epochs_differ():
  n, share = 10, order.Share("train.batch_size", 4)
  found = np.concatenate(
    [order.train_indices(s, n, 0, share) for s in range(5)]
  )
  first, second = found[:n], found[n:]
  assert sorted(first) == sorted(second) == list(range(n))
  assert (first != second).any()


def test_processes_read_consecutive_parts():
  whole = order.train_indices(5, 7, 0, order.Share("b", 6))
  parts = [
    order.train_indices(5, 7, 0, order.Share("b", 6, i, 3)) for i in range(3)
  ]
  np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_evaluation_batches_have_one_shape_each():
  """Each example occurs once; small groups have small batches."""
  a, b = (8, 6), (6, 8)
  shapes = [a, b, a, a, b, a, a]
  found = [(s, i.tolist()) for s, i in order.eval_batches(shapes, 4)]
  assert found == [(a, [0, 2, 3, 5]), (a, [6, -1, -1, -1]), (b, [1, 4])]
  found = [i.tolist() for _, i in order.eval_batches(shapes, 3, multiple=4)]
  assert found == [[0, 2, 3, 5], [6, -1, -1, -1], [1, 4, -1, -1]]
  assert list(order.eval_batches([], 4)) == []


def test_indivisible_batch_names_valid_sizes():
  with pytest.raises(UserError, match="train.batch_size=7 .* 6, 9"):
    order.Share("train.batch_size", 7, 0, 3)
