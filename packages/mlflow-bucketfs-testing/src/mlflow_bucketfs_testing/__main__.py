"""The command ``mlflow-bucketfs-testing`` as ``python -m mlflow_bucketfs_testing``."""

from mlflow_bucketfs_testing.cli import main

if __name__ == "__main__":
    main(prog_name="mlflow-bucketfs-testing")
