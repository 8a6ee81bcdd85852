"""Train a model and publish what it found."""
