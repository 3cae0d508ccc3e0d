"""Models, texts and explainers."""
