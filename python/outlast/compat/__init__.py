"""Names of the replaced system."""
