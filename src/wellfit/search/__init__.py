"""Search: coarse to fine over a space of settings, random in log space, broken off early, explained."""
