"""Scores by masks."""
