"""Schema changes, applied in order."""
