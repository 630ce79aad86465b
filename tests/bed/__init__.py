"""A load-balancing site in network namespaces: what integration tests, benchmarks and labs stand on."""
