"""The tasks, one folder for each bundle, and what they share."""
