"""What two or more networks share: convolutions, norms, pooling, resizing."""
