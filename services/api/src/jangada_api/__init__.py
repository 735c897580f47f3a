"""The HTTP delivery of Jangada: translates requests into calls on the domain and back."""
