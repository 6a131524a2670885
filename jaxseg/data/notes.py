"""Remarks on a data set that are no errors, one line each on stderr."""

import sys

import jax


def note(text: str) -> None:
  """Prints a line, in the first of several processes alone."""
  if jax.process_index() == 0:
    print(f"note: {text}", file=sys.stderr)
