"""`signald demo`: real processes, real deploys, and a judge that counts at the applications."""
