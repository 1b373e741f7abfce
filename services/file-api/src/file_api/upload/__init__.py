"""How bytes come in: forms and bodies, direct uploads in parts, and who may upload how much."""
