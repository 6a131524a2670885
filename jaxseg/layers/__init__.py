"""Blocks that two or more networks share, and public blocks for your own."""
