"""Floor 1: frozen values. What a path, a stat, a node, an event, an operation is; nothing that acts."""
