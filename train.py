"""Trains a network: the same as `jaxseg train`.

python train.py --config=configs/pspnet.py
"""

import sys

from jaxseg.cli import main

if __name__ == "__main__":
  sys.exit(main(["train", *sys.argv[1:]]))
