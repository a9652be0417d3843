"""Launchers: each takes run folders and starts ``optstudy train`` on them; the folder says what is done."""
