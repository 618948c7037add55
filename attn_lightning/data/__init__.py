"""Data modules and everything between a file and a batch."""
