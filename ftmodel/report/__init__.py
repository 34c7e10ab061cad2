"""From an example to what a person reads: a page, an issue to paste, and a script that shows the fault by itself.

`case.py` reads an example from the store, `data.py` and `log.py` say what is shown of it, `page.py`, `markdown.py` and
`index.py` put that into words.
"""
