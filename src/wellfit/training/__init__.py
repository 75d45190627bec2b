"""Training: one linear loop and the parts it is handed."""
