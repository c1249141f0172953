"""What the command line `search/run.py` is made of, in the order of its work.

`setup` what is checked before anything begins; `opening` the study; `assignments` what workers are given; `records`
what is left at the end. Here and in `run.py` all parts meet; nothing else imports this package.
"""
