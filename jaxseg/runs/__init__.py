"""The work directory and what it holds: configuration, checkpoints, scores."""
