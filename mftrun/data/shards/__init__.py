"""Training on sources that are never on disk as a whole: shard by shard, each the next samples of every task.

`stream` reads a source on and on, `maker` makes shards of what it reads, `folder` says where they lie and
how the processes of a run tell each other about them, `opened` is what a rank sees of them.
"""
