"""Set up before anything imports jax: eight virtual devices, typed calls."""

import os

# Tests run on the CPU, as eight devices: what holds there holds on a pod.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from jaxtyping import install_import_hook  # noqa: E402

# Every shape annotation of the library is checked in every call.
install_import_hook("jaxseg", "beartype.beartype")
