"""Studies: a YAML file is expanded into runs, with a plan of what is still to run."""
