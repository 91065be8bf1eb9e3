"""The one way in which anything here is timed."""
