"""HTTP to BucketFS: the only part of this package that talks to the network."""
