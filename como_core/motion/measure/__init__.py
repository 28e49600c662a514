"""Measuring a motion model honestly: probes beside baselines, S-PCFC, leakage audit, the report and its figure."""
