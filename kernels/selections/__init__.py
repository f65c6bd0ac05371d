"""Which pixels a refiner decodes."""
