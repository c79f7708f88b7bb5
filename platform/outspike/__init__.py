"""Distributed training and feature store for video anomaly detection."""
