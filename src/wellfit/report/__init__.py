"""Reads a run folder and shows it: figure data, SVG figures, the page, the terminal summary. Never trains, never writes
into the record.
"""
