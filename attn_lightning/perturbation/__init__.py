"""Perturbations of scores, word vectors and words: what training withstands and what attacks a finished model."""
