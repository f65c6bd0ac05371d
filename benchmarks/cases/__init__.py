"""What maskrt bench measures, a module for each case, and the models it measures on."""
