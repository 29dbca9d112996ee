"""Training tasks: an edit of a scene, its instruction, the exact target and mask."""
