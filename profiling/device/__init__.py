"""Time, memory, energy and exactness of a bundle on this machine and on phones; the time of other codecs beside it."""
