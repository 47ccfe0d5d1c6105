"""Floor 6: what operators see: metrics, health, status over HTTP."""
