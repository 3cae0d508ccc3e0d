"""LeGrad itself."""
