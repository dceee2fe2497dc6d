"""Packets: which SA, seal or open, and the batched way between TUN and the network."""
