"""Evaluation: inference, scores, and pictures of predictions."""
