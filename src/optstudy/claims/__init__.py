"""Claims of study files: what a test may say, what it measures, and the verdict on it. No torch."""
