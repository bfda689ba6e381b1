"""optuna-dashboard over the mirror, in a process of its own that lets nobody change anything."""
