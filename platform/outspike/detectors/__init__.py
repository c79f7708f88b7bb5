"""Detectors: bags of snippet features in, a probability of being anomalous per snippet out."""
