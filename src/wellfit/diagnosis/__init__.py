"""The doctor: `monitor.Monitor` watches any PyTorch loop, `rules` say in words what its history shows.

history      what was seen, as plain numbers (no torch)
rules/       pure functions: history → Finding or None (no torch)
monitor      the hooks' owner, which a user holds
activations, outputs, updates    what the hooks measure
"""
