"""A local page on which a person clicks objects; accepted objects are kept as label pictures and in COCO form.

`desk` does the work, `store` keeps the objects, `app` answers the browser.
"""
