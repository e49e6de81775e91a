"""HTTP by falcon on waitress, with a drain of our own around waitress's loop."""
