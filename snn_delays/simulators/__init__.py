"""Simulators that others wrote, each building the network from network.json by its own means.

Extra `verify`. NEST is GPL-licensed: it is imported only inside the function that runs it.
"""
