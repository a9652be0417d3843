"""Studies: a YAML file becomes runs, with a plan of what is still to run."""
