"""Augmentations: random changes of training images that keep their class; `table` names them all.

Training sees the random side of each. The test side is the fixed evaluation view with none of them: the middle, or the
mean, of what training draws from (SPEC R4). Every module states both sides.
"""
