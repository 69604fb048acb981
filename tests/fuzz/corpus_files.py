"""The files of the corpus, as make_corpus.py collects them."""

FILES = {}  # {target: {name: contents}}


def add(target, **files):
    FILES.setdefault(target, {}).update(files)
