"""Claims of study files: the language of tests, the measurement, and the verdict. No torch."""
