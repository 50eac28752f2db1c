"""Architectures that were captured after the detectors had been written: they are scored on these."""
