"""How jobs relate to one another: which of them count as the same."""
