"""Scores for anyone's own recordings: tables, intervals, curves and overlays."""
