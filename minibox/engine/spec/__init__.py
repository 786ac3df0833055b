"""From options to an OCI Spec to a Plan. The modules here look at the host and the image and change nothing."""
