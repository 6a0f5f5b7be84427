"""snn-delays."""
