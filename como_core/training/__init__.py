"""One training loop for the whole project: precision, devices, exact resume, logs, progress, checkpoints."""
