"""What is asked for -> OCI Spec -> Plan. Looks at the host and the image; changes nothing."""
