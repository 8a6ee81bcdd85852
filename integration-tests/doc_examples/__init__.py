"""Runs the commands and examples of the documentation, as a reader would type them.

Every fenced block of a page is executed, of a kind that is never run, or marked with a reason:

- ``python`` blocks run in one Python process per page. A block that defines ``test_…`` functions
  is given to pytest instead.
- ``bash`` blocks and the ``$`` lines of ``console`` blocks run in an empty directory that the page
  keeps; exported variables and ``cd`` reach the blocks below, Python's too. Every command must
  end with status 0.
- ``text``, ``mermaid``, ``json``, ``ini``, ``toml``, ``yaml`` and directives are not run.

Marks are comments on the lines before a block:

- ``<!-- skip: next "reason" -->``: it is not run, and pytest reports it as skipped for this
  reason; not if this begins with *run by*, and names the test that runs it. ``sql`` always needs
  the mark.
- ``<!-- runs until stopped -->``: it is started, and ended when the page ends or when another
  one takes its port. The blocks below run when its ports are open.
- ``<!-- file: train.py -->``: it is saved under this name; blocks below run it.
- ``<!-- ends with 1 -->``: the last command ends with this status.
- ``<!-- prints this -->``: each line of output in the ``console`` block was printed, in this order;
  numbers may differ, and ``…`` stands for anything.

Hosts that a test cannot have are replaced, see `doc_examples.substitutes`; ``pip install`` only
checks that the requirements are met, see `doc_examples.environment`.

With the variable ``DOC_EXAMPLES_WHEELS`` set to a directory with our wheels, each page runs as on
a new machine: in an empty environment, into which ``pip install`` installs for real::

    DOC_EXAMPLES_WHEELS=dist pytest README.md packages/mlflow-bucketfs-plugin/README.md
"""
