"""The one exception whose message is addressed to the user.

The message of a `UserError` is one line. It says what is wrong, where (file,
field), what was found, what was expected, and how to fix it. Commands print
this line and exit with status 2. All other exceptions are bugs and keep their
traceback.
"""

from collections.abc import Callable, Iterable
import difflib
import functools
import sys


class UserError(Exception):
  """A mistake that the user can fix."""


def exit_on_user_error(main: Callable[..., int | None]):
  """Decorates a `main` so that a UserError prints one line and exits with 2."""

  @functools.wraps(main)
  def wrapped(*args, **kwargs):
    try:
      return main(*args, **kwargs)
    except UserError as error:
      print(f"error: {error}", file=sys.stderr)
      raise SystemExit(2) from None

  return wrapped


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
  """Returns an error that suggests the closest name and lists all of them.

  Args:
    kind: What the name names, for example "model".
    name: The name that was given.
    known: The names that exist.
  """
  known = sorted(known)
  close = difflib.get_close_matches(name, known, n=1)
  guess = f" (did you mean {close[0]!r}?)" if close else ""
  return UserError(f"unknown {kind} {name!r}{guess}; known: {', '.join(known)}")
