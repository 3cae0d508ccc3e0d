"""What a vision tower is, and who reads which model."""
