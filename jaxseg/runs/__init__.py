"""Work directories: configuration, checkpoints and metrics of a run."""
