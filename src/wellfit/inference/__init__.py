"""What a trained model is good for: predictions, evaluation and the figures of a test."""
