"""The miniature data set: short surveillance-like recordings with known anomalies."""
