"""What regulations ask for beyond encryption and an audit log; docs/COMPLIANCE.md says which clause each module serves."""
