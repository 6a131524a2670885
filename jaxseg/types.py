"""Array aliases shared by all rooms; shapes are jaxtyping annotations.

Letters: n examples, h height, w width, c channels, k classes.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

Images = Float[Array, "n h w c"]
Logits = Float[Array, "n h w k"]

# Backbone output: "c1" ... "c5", c_l having stride 2^l before dilation.
Features = dict[str, jax.Array]
# Model output: "logits", and auxiliary heads under "aux_..." keys.
Outputs = dict[str, jax.Array]

Activation = Callable[[jax.Array], jax.Array]
