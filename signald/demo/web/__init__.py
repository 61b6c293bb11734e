"""`signald demo --web`: a page in a browser that goes on while nodes are deployed, rolled back and killed underneath."""
