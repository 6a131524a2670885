"""Runs `python -m jaxseg COMMAND`, the same as `jaxseg COMMAND`."""

import sys

from jaxseg.cli import main

if __name__ == "__main__":
  sys.exit(main())
