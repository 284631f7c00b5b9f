"""The causal test: all arms, matched control sets, endpoints on women held out."""
