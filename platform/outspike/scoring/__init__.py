"""One recording from decoding to scores, without a cluster."""
