"""A local page on which a person clicks objects; what they accept is kept as label pictures and in COCO form.

`desk` holds what happens, `store` what is kept, `app` what the browser may ask for.
"""
