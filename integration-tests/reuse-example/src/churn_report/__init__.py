"""Train a model and publish its reports."""
