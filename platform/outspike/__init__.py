"""Distributed training and feature store for video anomaly detection."""

__version__ = "0.1.0"
