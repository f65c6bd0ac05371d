"""CRM: rough masks refined at full resolution."""
