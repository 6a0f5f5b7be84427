"""The operations behind functional, nn and neurons, each as fast as this machine allows."""
