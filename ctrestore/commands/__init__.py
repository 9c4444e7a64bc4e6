"""The console scripts, one file for each command."""
