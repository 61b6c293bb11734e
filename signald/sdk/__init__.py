"""The other side: what clients and workers use to speak to signald."""
