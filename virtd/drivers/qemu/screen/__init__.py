"""A guest's terminals, screens and keys."""
