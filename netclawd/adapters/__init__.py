"""What touches the world: one library or kernel facility for each module; none imports another."""
