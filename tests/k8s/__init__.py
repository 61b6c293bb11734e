"""The manifests of k8s/, checked offline to the last field name."""
