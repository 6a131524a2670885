"""Training: state, step, optimizers, checkpoints and the loop."""
