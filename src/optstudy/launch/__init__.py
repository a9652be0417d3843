"""Launchers start ``optstudy train`` on run folders; the folders record what is done."""
