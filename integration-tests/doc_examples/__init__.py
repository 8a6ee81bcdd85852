"""Run the commands and examples of the documentation, as a reader would type them.

Every fenced block of a page is executed, has a language that is never run, or is marked with a
reason:

- ``python`` blocks run in one Python process per page. A block that defines ``test_…`` functions
  is run by pytest instead.
- ``bash`` blocks and the ``$`` lines of ``console`` blocks run in one directory per page, which is
  empty at first; exported variables and ``cd`` apply to the later blocks, Python's too. Every
  command must end with status 0.
- ``text``, ``mermaid``, ``json``, ``ini``, ``toml``, ``yaml`` and directives are not run.

Marks are comments on the lines before a block:

- ``<!-- skip: next "reason" -->``: it is not run, and pytest reports it as skipped with this
  reason. A reason that begins with *run by* names the test that runs it; then pytest does not
  report the block. ``sql`` always needs the mark.
- ``<!-- runs until stopped -->``: it is started, and ended when the page ends or when another
  block uses its port. The later blocks run when its ports are open.
- ``<!-- file: train.py -->``: it is saved under this name; later blocks run it.
- ``<!-- ends with 1 -->``: the last command ends with this status.
- ``<!-- prints this -->``: each line of output in the ``console`` block is printed, in this order;
  numbers may differ, and ``…`` matches any text.

Hosts that do not exist in a test are replaced, see `doc_examples.substitutes`; ``pip install`` only
checks that the requirements are met, see `doc_examples.environment`.

With the variable ``DOC_EXAMPLES_WHEELS`` set to a directory with our wheels, each page runs as on
a new machine: in an empty environment, into which ``pip install`` really installs::

    DOC_EXAMPLES_WHEELS=dist pytest README.md packages/mlflow-bucketfs-plugin/README.md
"""
