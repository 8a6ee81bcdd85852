"""Run UDFs without a database: the database's side of the protocol of Exasol's UDF client."""
