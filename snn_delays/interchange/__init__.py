"""network.json for other programs: NIR, Lava's netx for Loihi 2, and C."""
