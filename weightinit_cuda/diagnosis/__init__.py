"""What is suspicious about an initialisation."""
