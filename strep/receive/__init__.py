"""Receiving: readers fill batches, the track table says whose packets they are."""
