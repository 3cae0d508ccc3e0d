"""From a labelled sample of a run: when a class is there, how likely that is, where a mask ends."""
