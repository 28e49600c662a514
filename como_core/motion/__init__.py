"""Latent motion: learn it from video without action labels, measure it, and label any video with it."""
