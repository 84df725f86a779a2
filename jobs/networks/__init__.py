"""Builds, saves, loads and folds classifiers, and prepares them for inference."""
