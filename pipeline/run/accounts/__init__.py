"""What a run has done and taken: for its progress, its price, and those who watch it."""
