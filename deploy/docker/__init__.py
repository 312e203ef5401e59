"""The container image: what is installed in it, and how it says that it is ready."""
