"""optstudy: which optimizer, at what setting, and how safe is that choice?"""

__version__ = "0.1.0"
