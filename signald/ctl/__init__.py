"""`signald ctl`: a node's operators, on its host or from afar. It knows the admin API and nothing of the daemon."""
