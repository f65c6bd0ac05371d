"""The cases of maskrt bench, a module each, and the models that they measure."""
