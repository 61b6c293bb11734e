"""How it lives: nursery-scoped tasks."""
