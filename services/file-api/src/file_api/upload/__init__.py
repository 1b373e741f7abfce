"""How bytes come in: forms and bodies, direct uploads in parts, and the limits of each user."""
