"""Maps brought closer to the outlines in their image, by its colours alone."""
