"""Scores by labelled points."""
