"""Compare: what learning the delays buys, as a study of arms over seeds.

Every arm of a seed shares data, order, initial weights (where shapes allow), readout window, epochs
and protocol.
"""
