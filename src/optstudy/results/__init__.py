"""Results of finished runs: tables, curves, statistics, figures, and the committed record."""
