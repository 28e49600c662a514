"""Success rates with their uncertainty, and the report that shows them."""
