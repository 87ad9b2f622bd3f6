"""What people are shown of a host: the JSON form of a snapshot turned into words, bars and verdicts.

The status page and the `status` command both read these, so that the two cannot disagree.
"""
