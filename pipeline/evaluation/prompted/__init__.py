"""ADE20K Sound and Speech Prompted: maps of sounds against the classes of a scene."""
