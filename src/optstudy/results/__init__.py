"""What runs gave: tables, curves, statistics, figures, and the committed record."""
