"""Quantizers: vectors to small codes and back.

scalar.py   8 bits a dimension: centroid scoring and the re-rank store
product.py  4 bits a sub-space: the codes that the scan reads

index/ -> [quantization] -> kernels
"""
