"""Proof that a checkpoint is what was measured: rebuilt, checked in an engine, measured again."""
