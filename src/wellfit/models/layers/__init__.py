"""Layers and activations by name; where one is random, its training side and its test side stand together."""
