"""The programs of docs/examples as processes, on real nodes that are deployed and killed beneath them.

stage    the nodes, the programs, and the moments at which all stories meet for a deploy or a kill
stories  one for each example: what is typed, and what must be read; a new example adds its story here
"""
