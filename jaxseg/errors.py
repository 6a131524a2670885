"""The one error meant for the person at the keyboard.

A `UserError` carries one line: what, where (file, field), what was seen, what
was expected, and the fix. Command lines print that line and exit with status
2; anything else is a bug and keeps its traceback.
"""

from collections.abc import Callable
import difflib
import functools
import sys


class UserError(Exception):
  """Something the user can mend; its text is printed without a traceback."""


def exit_on_user_error(main: Callable[..., int | None]):
  """Wraps a `main`: a `UserError` becomes one line and exit status 2."""

  @functools.wraps(main)
  def wrapped(*args, **kwargs):
    try:
      return main(*args, **kwargs)
    except UserError as error:
      print(f"error: {error}", file=sys.stderr)
      raise SystemExit(2) from None

  return wrapped


def unknown_name(kind: str, name: str, known) -> UserError:
  """An error for a misspelt `name`: the likely one, and all that exist."""
  known = sorted(known)
  close = difflib.get_close_matches(name, known, n=1)
  guess = f" (did you mean {close[0]!r}?)" if close else ""
  return UserError(f"unknown {kind} {name!r}{guess}; known: {', '.join(known)}")
