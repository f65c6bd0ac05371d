"""CRM, which refines rough masks at full resolution."""
