"""jaxseg: semantic segmentation in JAX, every classic network as published.

Subpackages are imported one by one (`from jaxseg import models`), so that
reading a network never loads a data pipeline. Only `jaxseg.data.builders` and
`jaxseg.data.pipeline` load TensorFlow.
"""

__version__ = "0.2.0"


def load_run(workdir, checkpoint="best"):
  """Loads a trained network; see `jaxseg.runs.run.load_run`."""
  # Imported here, so that `import jaxseg` stays light.
  from jaxseg.runs.run import load_run

  return load_run(workdir, checkpoint)
