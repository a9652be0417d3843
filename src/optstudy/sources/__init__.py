"""Where text comes from: downloads, the hub, local files, and the cleaning of dumps."""
