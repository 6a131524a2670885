"""Applies a function to many files in threads, with a progress bar.

Threads suffice because decoding releases Python's global interpreter lock. The
number of waiting results is bounded, so a data set may be larger than memory.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
import itertools
import os
from typing import Any

from tqdm import tqdm


def in_order(
  function: Callable[[int], Any], count: int, *, title: str = ""
) -> Iterator[Any]:
  """Yields function(0), ..., function(count - 1) in this order.

  Args:
    function: Function of an index, called in several threads ahead of time.
    count: Number of indices.
    title: Text before the progress bar; "" for no bar.
  """
  workers = min(os.cpu_count() or 1, 16)
  waiting: deque = deque()
  indices = iter(range(count))
  pool = ThreadPoolExecutor(workers)
  try:
    with tqdm(
      total=count,
      desc=title,
      unit="",
      leave=False,
      # None shows the bar on terminals only.
      disable=None if title else True,
    ) as bar:
      for index in itertools.islice(indices, 4 * workers):
        waiting.append(pool.submit(function, index))
      while waiting:
        result = waiting.popleft().result()
        for index in itertools.islice(indices, 1):
          waiting.append(pool.submit(function, index))
        bar.update()
        yield result
  finally:
    pool.shutdown(cancel_futures=True)
