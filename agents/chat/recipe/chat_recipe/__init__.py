"""The training recipe of Lading's own small chat model: corpus, tokenizer, training, export and measurement.

Owns everything between an empty folder and the files in `agents/chat/model`. Needs the `train` extra; nothing in a
node, a coordinator or a client imports it.
"""
