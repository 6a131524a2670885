"""jaxseg: semantic segmentation in JAX, every classic network as published.

The rooms are imported one by one (`from jaxseg import models`), so that
reading a network never loads a data pipeline, and TensorFlow is loaded by
`jaxseg.data.builders` and `jaxseg.data.pipeline` alone.
"""
