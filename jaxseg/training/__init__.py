"""Training: setup, state, step, optimizers, reports and the loop."""
