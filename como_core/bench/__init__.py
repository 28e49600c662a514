"""`como bench`: speed and memory as ratios to limits that are measured in the same run, on the same machine."""
