"""Names and numbers that the step's graph and whoever runs it agree on."""

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, PyTorch's defaults
# Of a weight's name, what comes before it: Adam's two moments among the inputs, and everything among the outputs.
FIRST, SECOND, NEXT = "first.", "second.", "next."
STEP_INPUTS = ("choice", "rows", "columns", "target", "step_size", "correction")  # after weights, moments and prompt
