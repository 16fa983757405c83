"""What readers of every field share."""
