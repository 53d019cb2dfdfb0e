"""Conformance: vectors that reach every part of a decoder, and the matrix of decoders that run them."""
