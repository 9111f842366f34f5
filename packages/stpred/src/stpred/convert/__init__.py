"""Weights of the original implementations under our names, and back."""
