"""HTTP requests to BucketFS: the only part of this package that uses the network."""
