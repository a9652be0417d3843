"""The implementation of the commands; each module is imported when one of its commands is called."""
