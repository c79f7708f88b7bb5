"""Evaluation: named protocols, metrics with intervals over videos, and the HTML report."""
