"""What a node does for rooms: who may do what there, the members that it has, and what they say and are told."""
