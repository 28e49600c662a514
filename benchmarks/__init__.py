"""Scripts that make the tables of docs/, each with its rows in results/."""
