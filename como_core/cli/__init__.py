"""A file per verb of `como`; main.py lists them."""
