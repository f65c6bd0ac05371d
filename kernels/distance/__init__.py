"""How deep inside a mask its pixels lie."""
