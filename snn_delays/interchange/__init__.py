"""network.json in the formats of others: NIR, and Lava's netx for Loihi 2."""
