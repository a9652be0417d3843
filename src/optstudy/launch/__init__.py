"""Launchers start ``optstudy train`` on run folders; the folders say what is done."""
