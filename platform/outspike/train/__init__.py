"""Training: balanced bags, one step that any number of ranks share, checkpoints, the Ray job."""
