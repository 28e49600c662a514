"""Simulated robots behind one Env, scripted experts that drive them, and the data and trials they give."""
