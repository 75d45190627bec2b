"""Transfer: frozen features computed once, linear classifiers on them, and when to go further."""
