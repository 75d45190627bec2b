"""The recipe: `steps.py` is its table of contents."""
