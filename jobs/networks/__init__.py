"""Classifiers: built, saved, loaded, folded and made ready for inference."""
