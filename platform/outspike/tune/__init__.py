"""Hyperparameter search with Ray Tune: one parent run in MLflow, one nested run a trial."""
