"""Agent packages on disk and on the wire: blobs by digest, brought in from many peers, each chunk checked as it comes.

A manifest is a blob too; its digest is the agent's id. Nothing is ever extracted, and no path from a package is used
unless the manifest's rules passed it.
"""
