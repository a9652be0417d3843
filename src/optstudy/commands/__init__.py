"""What the commands do; each module loads only when one of its commands is called."""
