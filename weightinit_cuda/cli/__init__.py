"""What only the command line needs: models from configurations, the demonstration, peak memory."""
