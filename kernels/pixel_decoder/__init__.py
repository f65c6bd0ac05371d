"""CRM's pixel decoder: the logit of any pixel from its four nearest features."""
