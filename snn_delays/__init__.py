"""Spiking neural networks with one learnable delay per synapse, exported as integers."""
