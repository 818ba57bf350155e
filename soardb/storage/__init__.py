"""Bytes on disk.

format.py  one checksummed file of named arrays, written atomically and mapped on reading

index/ -> [storage]
"""
