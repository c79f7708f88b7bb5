"""Extraction with Ray Data: recordings in, feature rows in the store."""
