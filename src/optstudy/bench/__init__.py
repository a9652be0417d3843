"""Speed in one run: optimizer steps, and training, beside other libraries'."""
