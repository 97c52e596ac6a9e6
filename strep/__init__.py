"""strep: a receiver and audio pipeline for forked call media."""

__version__ = "0.1.0"
