"""Policies: observation encoder, diffusion over action chunks, co-training on decoded video, checkpoints."""
